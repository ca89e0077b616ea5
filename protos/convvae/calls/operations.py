"""The five batched operations: their request messages, their replies and their results.

An operation builds and parses messages only. `convvae.calls.exchanges` splits the rows, and the clients send.
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
    """The parsed reply to one chunk: an array per field with rows, and a constant per field without."""

    served: Served
    arrays: Mapping[str, NDArray[Any]]
    constants: Mapping[str, Any] = field(default_factory=dict)


class Operation(Protocol[R_co]):
    """One batched operation on the caller's whole array."""

    @property
    def method(self) -> str:
        """Name of the RPC."""

    @property
    def answer(self) -> Callable[..., R_co]:
        """Class of the caller's result. Its fields are arrays, constants and the version that answered."""

    @property
    def rows(self) -> int:
        """Number of rows of the whole call."""

    @property
    def draws(self) -> int:
        """Number of rows that the server counts for each row."""

    @property
    def field(self) -> str:
        """Name of the rows in error messages."""

    def check(self, info: ModelInfo, /) -> None:
        """Raise `InvalidInput` if the arguments do not fit the model."""

    def request_bytes(self, info: ModelInfo, /) -> int | Sequence[int]:
        """Return the bytes that a row adds to a request: one number for all rows, or one per row."""

    def reply_bytes(self, info: ModelInfo, /) -> int:
        """Return the bytes that a row adds to a reply."""

    def prepared(self, chunks: int, /) -> Self:
        """Return the operation to send in this number of chunks."""

    def request(self, model: vae_pb2.ModelRef, rows: range, info: ModelInfo, /) -> Any:
        """Build the request message for these rows."""

    def parse(self, reply: Any, rows: range, info: ModelInfo, /) -> ChunkReply:
        """Parse the reply to these rows.

        Raises:
            BadReply: The reply contradicts the contract.
        """


class _IndependentRows:
    """The base of operations whose rows count once, and whose chunks need no common seed."""

    draws = 1

    def prepared(self, _chunks: int) -> Self:
        return self


@dataclass(frozen=True)
class _ImageOperation(_IndependentRows):
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
class Encode(_ImageOperation):
    """The operation that maps images to the parameters of their posterior."""

    include_log_variance: bool = False
    method = "Encode"
    answer = results.Encoded

    def reply_bytes(self, info: ModelInfo) -> int:
        """Return the bytes of the mean, and of the log-variance if it is included."""
        return info.latent_dim * _FLOAT32_BYTES * (2 if self.include_log_variance else 1)

    def request(self, model: vae_pb2.ModelRef, rows: range, info: ModelInfo) -> vae_pb2.EncodeRequest:
        """Build the request message for these rows."""
        request = vae_pb2.EncodeRequest(model=model, include_log_variance=self.include_log_variance)
        self.images.fill(request, rows, info)
        return request

    def parse(self, reply: vae_pb2.EncodeResponse, rows: range, info: ModelInfo) -> ChunkReply:
        """Return `mean` and, if the reply has it, `log_variance`."""
        arrays = {"mean": read_vectors(reply.mean, rows=len(rows), dimension=info.latent_dim)}
        if self.include_log_variance and reply.HasField("log_variance"):
            arrays["log_variance"] = read_vectors(
                reply.log_variance, rows=len(rows), dimension=info.latent_dim
            )
        return ChunkReply(read_served(reply.model), arrays)


@dataclass(frozen=True)
class Decode(_IndependentRows):
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
        if self.latents.shape[1] != info.latent_dim:
            raise refuse(
                "latents",
                f"shape is {self.latents.shape}; model {info.model!r} takes (N, {info.latent_dim})",
            )

    def request_bytes(self, info: ModelInfo) -> int:
        """Return the bytes of one vector."""
        return info.latent_dim * _FLOAT32_BYTES

    def reply_bytes(self, info: ModelInfo) -> int:
        """Return the bytes of one image."""
        return int(np.prod(info.image_shape))

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
class Sample:
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
        return int(np.prod(info.image_shape)) + info.latent_dim * _FLOAT32_BYTES

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


@dataclass(frozen=True)
class Reconstruct(_ImageOperation):
    """The operation that encodes images and decodes their posterior means."""

    method = "Reconstruct"
    answer = results.Reconstructed

    def reply_bytes(self, info: ModelInfo) -> int:
        """Return the bytes of one image."""
        return int(np.prod(info.image_shape))

    def request(self, model: vae_pb2.ModelRef, rows: range, info: ModelInfo) -> vae_pb2.ReconstructRequest:
        """Build the request message for these rows."""
        request = vae_pb2.ReconstructRequest(model=model)
        self.images.fill(request, rows, info)
        return request

    def parse(self, reply: vae_pb2.ReconstructResponse, rows: range, info: ModelInfo) -> ChunkReply:
        """Return the images."""
        images = read_pixels(reply.images, rows=len(rows), image_shape=info.image_shape)
        return ChunkReply(read_served(reply.model), {"images": images})


@dataclass(frozen=True)
class Score(_ImageOperation):
    """The operation that computes the evidence lower bound of images."""

    num_samples: int = 0
    seed: int | None = None
    first_row: int = 0
    method = "Score"
    answer = results.Scored

    @classmethod
    def checked(cls, images: Any, num_samples: Any, seed: Any, first_row: Any) -> Self:
        """Check the caller's arguments and return the operation."""
        rows = check_images(images)
        return cls(
            rows, check_num_samples(num_samples), check_seed(seed), check_first_row(first_row, rows.rows)
        )

    @property
    def draws(self) -> int:  # type: ignore[override]
        """Number of draws per image: the server counts each as a row."""
        return max(1, self.num_samples)

    def prepared(self, chunks: int) -> Self:
        """Return the operation with a seed drawn here if several requests need the same one."""
        if chunks > 1 and self.num_samples and self.seed is None:
            return replace(self, seed=secrets.randbelow(2**53))
        return self

    def reply_bytes(self, _info: ModelInfo) -> int:
        """Return the bytes of three numbers."""
        return 3 * _FLOAT32_BYTES

    def request(self, model: vae_pb2.ModelRef, rows: range, info: ModelInfo) -> vae_pb2.ScoreRequest:
        """Build the request message for these rows."""
        request = vae_pb2.ScoreRequest(
            model=model,
            num_samples=self.num_samples,
            seed=self.seed,
            first_row=self.first_row + rows.start,
        )
        self.images.fill(request, rows, info)
        return request

    def parse(self, reply: vae_pb2.ScoreResponse, rows: range, _info: ModelInfo) -> ChunkReply:
        """Return `elbo`, `distortion` and `rate`."""
        arrays = {
            name: read_values(getattr(reply, name), name, rows=len(rows))
            for name in ("elbo", "distortion", "rate")
        }
        seed = reply.seed if self.num_samples and reply.HasField("seed") else None
        return ChunkReply(read_served(reply.model), arrays, {"seed": seed})
