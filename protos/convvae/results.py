"""The results of the client's methods: frozen records of numpy arrays and of models."""

import json
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Answer",
    "Decoded",
    "Encoded",
    "Health",
    "Likelihood",
    "Limits",
    "ModelInfo",
    "ModelSummary",
    "Reconstructed",
    "Sampled",
    "Scored",
    "VersionSummary",
]


@dataclass(frozen=True, kw_only=True, eq=False)
class Answer:
    """The model version that answered. Row i of every array belongs to row i of the input.

    Attributes:
        model: Name of the model.
        version: Its version; the same for all rows.
        precision: Precision of the graphs that ran: `fp32`, `fp16` or `int8`.
    """

    model: str
    version: int
    precision: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoded(Answer):
    """The posterior q(z|x) of images.

    Attributes:
        mean: float32, (N, Z).
        log_variance: float32, (N, Z), natural logarithm. None if it was not requested, and for `ae`.
    """

    mean: NDArray[np.float32]
    log_variance: NDArray[np.float32] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Decoded(Answer):
    """The images of latent vectors: the means of p(x|z).

    Attributes:
        images: uint8, (N, H, W, C).
    """

    images: NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, eq=False)
class Sampled(Answer):
    """Images drawn from the prior.

    Attributes:
        images: uint8, (N, H, W, C).
        latents: float32, (N, Z): the decoded latent vectors.
        seed: Seed of the noise. The same seed gives the same latents.
    """

    images: NDArray[np.uint8]
    latents: NDArray[np.float32]
    seed: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Reconstructed(Answer):
    """Images encoded and decoded again.

    Attributes:
        images: uint8, (N, H, W, C).
    """

    images: NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, eq=False)
class Scored(Answer):
    """The evidence lower bound of images, in nats per image: elbo = -(distortion + rate).

    Attributes:
        elbo: float32, (N,): evidence lower bound.
        distortion: float32, (N,): -log p(x|z).
        rate: float32, (N,): KL(q(z|x) || p(z)).
        seed: Seed of the draws, or None without draws.
    """

    elbo: NDArray[np.float32]
    distortion: NDArray[np.float32]
    rate: NDArray[np.float32]
    seed: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Likelihood:
    """The distribution p(x|z) that `score` uses, and its constant. The other constants are None."""

    name: str
    probability_clamp: float | None = None
    sigma: float | None = None
    scale: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Limits reported by the server. 0 means that the server reports none."""

    max_rows_per_call: int = 0
    max_message_bytes: int = 0
    max_pixels_per_file: int = 0
    max_queued_rows: int = 0
    max_pending_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """One loaded model version.

    Attributes:
        model: Name of the model.
        version: Its version.
        precision: Precision of the graphs that run.
        objective: `ae`, `vae`, `vae-disl` or `vae-gan`.
        likelihood: The likelihood that `score` uses.
        height: Height of an image in pixels.
        width: Width of an image in pixels.
        channels: 1 (grey) or 3 (RGB).
        latent_dim: Number of values in a latent vector.
        capabilities: Some of `encode`, `decode`, `sample`, `reconstruct` and `score`.
        precisions: Precisions in which the bundle has graphs.
        limits: Limits of the server on one request. The client splits larger arrays.
        manifest_json: The bundle's manifest as JSON.
    """

    model: str
    version: int
    precision: str
    objective: str
    likelihood: Likelihood
    height: int
    width: int
    channels: int
    latent_dim: int
    capabilities: tuple[str, ...]
    precisions: tuple[str, ...]
    limits: Limits
    manifest_json: str

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        return self.height, self.width, self.channels

    @property
    def manifest(self) -> Any:
        """The manifest, parsed."""
        return json.loads(self.manifest_json)


@dataclass(frozen=True, kw_only=True, slots=True)
class VersionSummary:
    """A published version: its `state`, `serving`, `loading`, `not_loaded` or `failed`, and the `error`."""

    version: int
    state: str
    is_default: bool
    error: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSummary:
    """A model and its published versions, ascending."""

    name: str
    versions: tuple[VersionSummary, ...]


class Health(IntEnum):
    """The health of a service, as `grpc.health.v1.Health/Check` reports it."""

    UNKNOWN = 0
    SERVING = 1
    NOT_SERVING = 2
    SERVICE_UNKNOWN = 3
