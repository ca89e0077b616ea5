"""The operations that return images of latent vectors: decode and sample."""

import math
import secrets
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from convvae import results
from convvae.calls.operation import FLOAT32_BYTES, ChunkReply, IndependentRows, UnnamedRows
from convvae.calls.replies import read_pixels, read_served, read_vectors
from convvae.inputs.arguments import check_count, check_first_row, check_seed, check_temperature, check_width
from convvae.results import ModelInfo
from convvae.v1 import vae_pb2

__all__ = ["Decode", "Sample"]


@dataclass(frozen=True)
class Decode(IndependentRows):
    """The operation that maps latent vectors to images."""

    latents: NDArray[np.float32]
    method = "Decode"
    answer = results.Decoded
    field = "latents"

    @property
    def rows(self) -> int:
        """Number of rows of the whole call."""
        return len(self.latents)

    def check(self, info: ModelInfo) -> None:
        """Raise `InvalidInput` unless the vectors have the model's dimension."""
        check_width(self.latents, info)

    def request_bytes(self, info: ModelInfo) -> int:
        """Return the bytes of one vector."""
        return info.latent_dim * FLOAT32_BYTES

    def reply_bytes(self, info: ModelInfo) -> int:
        """Return the bytes of one image."""
        return math.prod(info.image_shape)

    def request(self, model: vae_pb2.ModelRef, rows: range, info: ModelInfo) -> vae_pb2.DecodeRequest:
        """Build the request message for these rows."""
        data = self.latents[rows.start : rows.stop].tobytes()
        vectors = vae_pb2.Vectors(data=data, count=len(rows), dimension=info.latent_dim)
        return vae_pb2.DecodeRequest(model=model, latents=vectors)

    def parse(self, reply: vae_pb2.DecodeResponse, rows: range, info: ModelInfo) -> ChunkReply:
        """Return the images."""
        images = read_pixels(reply.images, rows=len(rows), image_shape=info.image_shape)
        return ChunkReply(read_served(reply.model), {"images": images})


@dataclass(frozen=True)
class Sample(UnnamedRows):
    """The operation that draws images from the prior."""

    rows: int
    seed: int | None
    temperature: float
    first_row: int
    method = "Sample"
    answer = results.Sampled
    field = "count"
    draws = 1

    @classmethod
    def checked(cls, count: Any, seed: Any, temperature: Any, first_row: Any) -> Self:
        """Check the caller's arguments and return the operation."""
        rows = check_count(count)
        return cls(rows, check_seed(seed), check_temperature(temperature), check_first_row(first_row, rows))

    def check(self, _info: ModelInfo) -> None:
        """Do nothing: the arguments fit every model."""

    def request_bytes(self, _info: ModelInfo) -> int:
        """Return 0: a request contains the number of rows only."""
        return 0

    def reply_bytes(self, info: ModelInfo) -> int:
        """Return the bytes of one image and one vector."""
        return math.prod(info.image_shape) + info.latent_dim * FLOAT32_BYTES

    def prepared(self, chunks: int) -> Self:
        """Return the operation with a seed drawn here if several requests need the same one."""
        return replace(self, seed=secrets.randbelow(2**53)) if chunks > 1 and self.seed is None else self

    def request(self, model: vae_pb2.ModelRef, rows: range, _info: ModelInfo) -> vae_pb2.SampleRequest:
        """Build the request message for these rows."""
        return vae_pb2.SampleRequest(
            model=model,
            count=len(rows),
            seed=self.seed,
            first_row=self.first_row + rows.start,
            temperature=self.temperature,
        )

    def parse(self, reply: vae_pb2.SampleResponse, rows: range, info: ModelInfo) -> ChunkReply:
        """Return the images and their latent vectors."""
        arrays: dict[str, NDArray[Any]] = {
            "images": read_pixels(reply.images, rows=len(rows), image_shape=info.image_shape),
            "latents": read_vectors(reply.latents, rows=len(rows), dimension=info.latent_dim),
        }
        return ChunkReply(read_served(reply.model), arrays, {"seed": reply.seed})
