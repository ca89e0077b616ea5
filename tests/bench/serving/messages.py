"""The requests of a cell, as bytes that are made before the clock starts."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.serving.cell import EMPTY, FILES, Cell
from convvae.v1 import vae_pb2

__all__ = ["images_of", "jpegs_of", "latents_of", "path_of", "request_of"]


def images_of(cell: Cell) -> NDArray[np.uint8]:
    """Return noise images, uint8 (rows, H, W, C)."""
    return np.random.default_rng(0).integers(0, 256, (cell.rows, *cell.shape), np.uint8)


def jpegs_of(cell: Cell) -> list[bytes]:
    """Return the images as JPEG files of quality 90."""
    files = []
    for image in images_of(cell):
        file = io.BytesIO()
        Image.fromarray(image.squeeze()).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files


def latents_of(cell: Cell, latent_dim: int) -> NDArray[np.float32]:
    """Return draws from the prior, float32 (rows, Z)."""
    return np.random.default_rng(0).standard_normal((cell.rows, latent_dim), np.float32)


def path_of(cell: Cell) -> str:
    """Return the path of the cell's method."""
    name = {EMPTY: "ListModels", FILES: "Encode"}.get(cell.method, cell.method)
    return f"/convvae.v1.VaeService/{name}"


def request_of(cell: Cell, model: str, latent_dim: int) -> bytes:
    """Return the bytes of the cell's request."""
    ref = vae_pb2.ModelRef(name=model)
    if cell.method == EMPTY:
        return vae_pb2.ListModelsRequest().SerializeToString()
    if cell.method == FILES:
        return vae_pb2.EncodeRequest(model=ref, files=jpegs_of(cell)).SerializeToString()
    if cell.method == "Sample":
        return vae_pb2.SampleRequest(model=ref, count=cell.rows, seed=1).SerializeToString()
    if cell.method == "Decode":
        data = latents_of(cell, latent_dim).tobytes()
        vectors = vae_pb2.Vectors(data=data, count=cell.rows, dimension=latent_dim)
        return vae_pb2.DecodeRequest(model=ref, latents=vectors).SerializeToString()
    height, width, channels = cell.shape
    pixels = vae_pb2.Pixels(
        data=images_of(cell).tobytes(), count=cell.rows, height=height, width=width, channels=channels
    )
    if cell.method == "Reconstruct":
        return vae_pb2.ReconstructRequest(model=ref, pixels=pixels).SerializeToString()
    return vae_pb2.EncodeRequest(model=ref, pixels=pixels).SerializeToString()
