"""The five batched calls: what each sends for some rows, what it reads back, what it returns in the end.

No operation knows how its messages travel; `convvae.calls.exchanges` cuts and orders, the clients send.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from convvae import results
from convvae.calls.images import Images, check_images
from convvae.calls.inputs import (
    check_count,
    check_first_row,
    check_num_samples,
    check_seed,
    check_temperature,
    refuse,
)
from convvae.calls.replies import Served, read_pixels, read_served, read_values, read_vectors
from convvae.results import ModelInfo
from convvae.v1 import vae_pb2

__all__ = ["ChunkReply", "Decode", "Encode", "Operation", "Reconstruct", "Sample", "Score"]

R_co = TypeVar("R_co", covariant=True)

_FLOAT32_BYTES = 4


@dataclass(frozen=True, slots=True)
class ChunkReply:
    """The answer to one piece: an array for each field with rows, a value for each that has none."""

    served: Served
    arrays: Mapping[str, NDArray[Any]]
    constants: Mapping[str, Any] = field(default_factory=dict)


class Operation(Protocol[R_co]):
    """One batched call over the caller's whole array."""

    @property
    def method(self) -> str:
        """Name of the RPC."""

    @property
    def answer(self) -> Callable[..., R_co]:
        """Class of what the caller gets, made of all parts' arrays and constants and of who answered."""

    @property
    def rows(self) -> int:
        """Rows of the whole call."""

    @property
    def draws(self) -> int:
        """Rows that the server counts for one of ours."""

    @property
    def field(self) -> str:
        """Name of the rows in errors."""

    def check(self, info: ModelInfo, /) -> None:
        """Raise `InvalidInput` when the arguments do not fit the model."""

    def request_bytes(self, info: ModelInfo, /) -> int | Sequence[int]:
        """Return what a row adds to a request: one number for all rows, or one for each."""

    def reply_bytes(self, info: ModelInfo, /) -> int:
        """Return what a row adds to a reply."""

    def prepared(self, chunks: int, /) -> Self:
        """Return the operation to send when it is cut into `chunks`."""

    def request(self, model: vae_pb2.ModelRef, rows: range, info: ModelInfo, /) -> Any:
        """Return the message for some rows."""

    def parse(self, reply: Any, rows: range, info: ModelInfo, /) -> ChunkReply:
        """Return what the reply to these rows holds."""


class _Whole:
    """What most operations share: the server counts a row as one, and chunks need nothing in common."""

    draws = 1

    def prepared(self, _chunks: int) -> Self:
        return self


@dataclass(frozen=True)
class _OfImages(_Whole):
    images: Images

    @property
    def rows(self) -> int:
        return self.images.rows

    @property
    def field(self) -> str:
        return self.images.field

    def check(self, info: ModelInfo) -> None:
        self.images.check(info)

    def request_bytes(self, info: ModelInfo) -> int | Sequence[int]:
        return self.images.row_bytes(info)


@dataclass(frozen=True)
class Encode(_OfImages):
    """Images to the parameters of their posterior."""

    include_log_variance: bool = False
    method = "Encode"
    answer = results.Encoded

    def reply_bytes(self, info: ModelInfo) -> int:
        """Count the mean, and the log-variance when asked for."""
        return info.latent_dim * _FLOAT32_BYTES * (2 if self.include_log_variance else 1)

    def request(self, model: vae_pb2.ModelRef, rows: range, info: ModelInfo) -> vae_pb2.EncodeRequest:
        """Return the message for some rows."""
        request = vae_pb2.EncodeRequest(model=model, include_log_variance=self.include_log_variance)
        self.images.fill(request, rows, info)
        return request

    def parse(self, reply: vae_pb2.EncodeResponse, rows: range, info: ModelInfo) -> ChunkReply:
        """Return mean and, where the reply has it, log_variance."""
        arrays = {"mean": read_vectors(reply.mean, rows=len(rows), dimension=info.latent_dim)}
        if self.include_log_variance and reply.HasField("log_variance"):
            arrays["log_variance"] = read_vectors(
                reply.log_variance, rows=len(rows), dimension=info.latent_dim
            )
        return ChunkReply(read_served(reply.model), arrays)


@dataclass(frozen=True)
class Decode(_Whole):
    """Latent vectors to images."""

    latents: NDArray[np.float32]
    method = "Decode"
    answer = results.Decoded
    field = "latents"

    @property
    def rows(self) -> int:
        """Rows of the whole call."""
        return len(self.latents)

    def check(self, info: ModelInfo) -> None:
        """Compare the vectors' dimension with the model's."""
        if self.latents.shape[1] != info.latent_dim:
            raise refuse(
                "latents",
                f"shape is {self.latents.shape}; model {info.model!r} takes (N, {info.latent_dim})",
            )

    def request_bytes(self, info: ModelInfo) -> int:
        """Count one vector."""
        return info.latent_dim * _FLOAT32_BYTES

    def reply_bytes(self, info: ModelInfo) -> int:
        """Count one image."""
        return int(np.prod(info.image_shape))

    def request(self, model: vae_pb2.ModelRef, rows: range, info: ModelInfo) -> vae_pb2.DecodeRequest:
        """Return the message for some rows."""
        data = self.latents[rows.start : rows.stop].tobytes()
        vectors = vae_pb2.Vectors(data=data, count=len(rows), dimension=info.latent_dim)
        return vae_pb2.DecodeRequest(model=model, latents=vectors)

    def parse(self, reply: vae_pb2.DecodeResponse, rows: range, info: ModelInfo) -> ChunkReply:
        """Return the images."""
        images = read_pixels(reply.images, rows=len(rows), image_shape=info.image_shape)
        return ChunkReply(read_served(reply.model), {"images": images})


@dataclass(frozen=True)
class Sample:
    """Images drawn from the prior."""

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
        """Return the operation for a caller's arguments."""
        rows = check_count(count)
        return cls(rows, check_seed(seed), check_temperature(temperature), check_first_row(first_row, rows))

    def check(self, _info: ModelInfo) -> None:
        """Do nothing: a sample fits every model."""

    def request_bytes(self, _info: ModelInfo) -> int:
        """Count nothing: a request names its rows."""
        return 0

    def reply_bytes(self, info: ModelInfo) -> int:
        """Count one image and one vector."""
        return int(np.prod(info.image_shape)) + info.latent_dim * _FLOAT32_BYTES

    def prepared(self, chunks: int) -> Self:
        """Draw the seed here when several requests need the same."""
        return replace(self, seed=secrets.randbelow(2**53)) if chunks > 1 and self.seed is None else self

    def request(self, model: vae_pb2.ModelRef, rows: range, _info: ModelInfo) -> vae_pb2.SampleRequest:
        """Return the message for some rows."""
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


@dataclass(frozen=True)
class Reconstruct(_OfImages):
    """Images encoded and decoded again."""

    method = "Reconstruct"
    answer = results.Reconstructed

    def reply_bytes(self, info: ModelInfo) -> int:
        """Count one image."""
        return int(np.prod(info.image_shape))

    def request(self, model: vae_pb2.ModelRef, rows: range, info: ModelInfo) -> vae_pb2.ReconstructRequest:
        """Return the message for some rows."""
        request = vae_pb2.ReconstructRequest(model=model)
        self.images.fill(request, rows, info)
        return request

    def parse(self, reply: vae_pb2.ReconstructResponse, rows: range, info: ModelInfo) -> ChunkReply:
        """Return the images."""
        images = read_pixels(reply.images, rows=len(rows), image_shape=info.image_shape)
        return ChunkReply(read_served(reply.model), {"images": images})


@dataclass(frozen=True)
class Score(_OfImages):
    """The evidence lower bound of images."""

    num_samples: int = 0
    seed: int | None = None
    first_row: int = 0
    method = "Score"
    answer = results.Scored

    @classmethod
    def checked(cls, images: Any, num_samples: Any, seed: Any, first_row: Any) -> Self:
        """Return the operation for a caller's arguments."""
        rows = check_images(images)
        return cls(
            rows, check_num_samples(num_samples), check_seed(seed), check_first_row(first_row, rows.rows)
        )

    @property
    def draws(self) -> int:  # type: ignore[override]
        """The server counts every draw as a row."""
        return max(1, self.num_samples)

    def prepared(self, chunks: int) -> Self:
        """Draw the seed here when several requests need the same."""
        if chunks > 1 and self.num_samples and self.seed is None:
            return replace(self, seed=secrets.randbelow(2**53))
        return self

    def reply_bytes(self, _info: ModelInfo) -> int:
        """Count three numbers."""
        return 3 * _FLOAT32_BYTES

    def request(self, model: vae_pb2.ModelRef, rows: range, info: ModelInfo) -> vae_pb2.ScoreRequest:
        """Return the message for some rows."""
        request = vae_pb2.ScoreRequest(
            model=model,
            num_samples=self.num_samples,
            seed=self.seed,
            first_row=self.first_row + rows.start,
        )
        self.images.fill(request, rows, info)
        return request

    def parse(self, reply: vae_pb2.ScoreResponse, rows: range, _info: ModelInfo) -> ChunkReply:
        """Return the three figures."""
        arrays = {
            name: read_values(getattr(reply, name), name, rows=len(rows))
            for name in ("elbo", "distortion", "rate")
        }
        seed = reply.seed if self.num_samples and reply.HasField("seed") else None
        return ChunkReply(read_served(reply.model), arrays, {"seed": seed})
