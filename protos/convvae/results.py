"""What the client's methods return: frozen records of numpy arrays, and of models."""

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
    """Who answered. Row i of every array belongs to row i of the input.

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
        log_variance: float32, (N, Z), natural logarithm; None unless asked for, and for a plain autoencoder.
    """

    mean: NDArray[np.float32]
    log_variance: NDArray[np.float32] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Decoded(Answer):
    """Images of latent vectors: the means of p(x|z).

    Attributes:
        images: uint8, (N, H, W, C).
    """

    images: NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, eq=False)
class Sampled(Answer):
    """Images drawn from the prior.

    Attributes:
        images: uint8, (N, H, W, C).
        latents: float32, (N, Z): what was decoded.
        seed: Seed of the noise; the same seed gives the same latents.
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
    """How well the model explains images, in nats per image; elbo = -(distortion + rate).

    Attributes:
        elbo: float32, (N,): evidence lower bound.
        distortion: float32, (N,): -log p(x|z).
        rate: float32, (N,): KL divergence from the prior to q(z|x).
        seed: Seed of the draws; None when there were none.
    """

    elbo: NDArray[np.float32]
    distortion: NDArray[np.float32]
    rate: NDArray[np.float32]
    seed: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Likelihood:
    """The distribution p(x|z) that `score` uses, and its constants; those of other likelihoods are None."""

    name: str
    probability_clamp: float | None = None
    sigma: float | None = None
    scale: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What the server accepts. 0: the server did not say."""

    max_rows_per_call: int = 0
    max_message_bytes: int = 0
    max_pixels_per_file: int = 0
    max_queued_rows: int = 0
    max_queued_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """One loaded model version.

    Attributes:
        model: Name of the model.
        version: Its version.
        precision: Precision of the graphs that run.
        objective: `ae`, `vae`, `vae-disl` or `vae-gan`.
        likelihood: What `score` computes with.
        height: Height of an image in pixels.
        width: Width of an image in pixels.
        channels: 1 (grey) or 3 (RGB).
        latent_dim: Values in a latent vector.
        capabilities: Of `encode`, `decode`, `sample`, `reconstruct`, `score`.
        precisions: Precisions that the bundle has graphs of.
        limits: What the server accepts in one request; the client cuts larger arrays by itself.
        manifest_json: The bundle's whole manifest.
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
    """A published version: `state` is `serving`, `loading`, `not_loaded` or `failed`; `error` says why."""

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
    """What the server answers to `grpc.health.v1.Health/Check`."""

    UNKNOWN = 0
    SERVING = 1
    NOT_SERVING = 2
    SERVICE_UNKNOWN = 3
