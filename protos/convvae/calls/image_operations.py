"""The operations on images: encode, reconstruct and score."""

import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from convvae import results
from convvae.calls.operation import FLOAT32_BYTES, ChunkReply, IndependentRows
from convvae.calls.replies import read_pixels, read_served, read_values, read_vectors
from convvae.errors import InvalidInput
from convvae.inputs.arguments import check_first_row, check_num_samples, check_seed
from convvae.inputs.given_images import check_images
from convvae.inputs.images import Images
from convvae.results import ModelInfo
from convvae.v1 import vae_pb2

__all__ = ["Encode", "Reconstruct", "Score"]


@dataclass(frozen=True)
class _ImageOperation(IndependentRows):
    images: Images

    @property
    def rows(self) -> int:
        return self.images.rows

    @property
    def field(self) -> str:
        return self.images.field

    def check(self, info: ModelInfo) -> None:
        self.images.check(info)

    def named(self, error: InvalidInput) -> InvalidInput:
        return self.images.named(error)

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
        return info.latent_dim * FLOAT32_BYTES * (2 if self.include_log_variance else 1)

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
class Reconstruct(_ImageOperation):
    """The operation that encodes images and decodes their posterior means."""

    method = "Reconstruct"
    answer = results.Reconstructed

    def reply_bytes(self, info: ModelInfo) -> int:
        """Return the bytes of one image."""
        return math.prod(info.image_shape)

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
        return 3 * FLOAT32_BYTES

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
