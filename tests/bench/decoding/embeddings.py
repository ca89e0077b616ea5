"""Embeddings of files that were decoded at full size and scaled, compared by cosine."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.decoding.pictures import PhotographCrops, jpeg
from convvae_service.bundle import Resize
from convvae_service.images import decode_file, read_header
from convvae_service.images.resizing import decoding_scale
from convvae_service.pipeline.local import LocalEncoder

__all__ = ["compare_embeddings"]

FULL, SCALED = Resize(), Resize(decode="scaled")


def compare_embeddings(version: Path) -> dict[str, dict[str, float]]:
    """Return, for each kind of file, the cosines of both embeddings.

    Args:
        version: Folder of a bundle of 64x64x3 images.
    """
    crops = PhotographCrops(seed=1)
    kinds = {
        "photographs of 256 pixels": [jpeg(crops.crop(256)) for _ in range(100)],
        "photographs of 427 pixels": [jpeg(crops.crop(427)) for _ in range(100)],
        "1,024 pixels, 4x4 photographs of 256": [jpeg(crops.mosaic(1024, 256)) for _ in range(50)],
        "1,024 pixels, 8x8 photographs of 128": [jpeg(crops.mosaic(1024, 128)) for _ in range(50)],
    }
    encoder = LocalEncoder(version, device="cpu")
    return {name: _cosines(files, encoder) for name, files in kinds.items()}


def _cosines(files: Sequence[bytes], encoder: LocalEncoder) -> dict[str, float]:
    shape = encoder.info.input.shape
    full_NZ, scaled_NZ = (
        encoder.encode(
            np.stack([decode_file(data, shape=shape, resize=rule) for data in files]), log_variance=False
        ).mean
        for rule in (FULL, SCALED)
    )
    cosine_N = _cosine(full_NZ, scaled_NZ)
    # The part that all embeddings have in common makes cosines large.
    centred_N = _cosine(full_NZ - full_NZ.mean(axis=0), scaled_NZ - full_NZ.mean(axis=0))
    return {
        "scale": decoding_scale(read_header(files[0]), shape=shape, resize=SCALED),
        "files": len(files),
        "cosine_mean": round(float(cosine_N.mean()), 6),
        "cosine_lowest": round(float(cosine_N.min()), 6),
        "centred_cosine_mean": round(float(centred_N.mean()), 6),
        "centred_cosine_lowest": round(float(centred_N.min()), 6),
    }


def _cosine(a_NZ: NDArray[np.float32], b_NZ: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths_N = np.linalg.norm(a_NZ, axis=1) * np.linalg.norm(b_NZ, axis=1)
    cosine_N: NDArray[np.float32] = (a_NZ * b_NZ).sum(axis=1) / lengths_N
    return cosine_N
