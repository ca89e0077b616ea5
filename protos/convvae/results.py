"""The results of the client's methods: frozen records of numpy arrays and of models.

A notebook shows images as a grid. Everywhere else an array is shown by its dtype and shape.
"""

import base64
import html
import json
from dataclasses import dataclass, field, fields
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convvae.errors import ConvvaeError
from convvae.pictures import encode_png, grid, shown_count

__all__ = [
    "Answer",
    "Decoded",
    "Encoded",
    "Health",
    "ImageAnswer",
    "Likelihood",
    "Limits",
    "ModelInfo",
    "ModelSummary",
    "Reconstructed",
    "Sampled",
    "Scored",
    "VersionSummary",
]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
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

    def __repr__(self) -> str:
        values = ", ".join(f"{each.name}={_shown(getattr(self, each.name))}" for each in fields(self))
        return f"{type(self).__name__}({values})"


def _shown(value: object) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else repr(value)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ImageAnswer(Answer):
    """The base of answers with images, which a notebook shows as a grid.

    Attributes:
        images: uint8, (N, H, W, C).
    """

    images: NDArray[np.uint8]

    def _repr_png_(self) -> bytes | None:
        """Return the first images as a grid, or None where Pillow is not installed."""
        try:
            return encode_png(grid(self.images[: shown_count(self.images.shape)]))
        except ConvvaeError:
            return None

    def _repr_html_(self) -> str | None:
        """Return the grid with a line on what it shows."""
        picture = self._repr_png_()
        if picture is None:
            return None
        count, shown = len(self.images), shown_count(self.images.shape)
        words = [f"{count} images" if shown == count else f"the first {shown} of {count} images"]
        words.append(f"by {self.model}@{self.version} ({self.precision})")
        data = base64.b64encode(picture).decode()
        return f'<img src="data:image/png;base64,{data}"/><br/>{html.escape(" ".join(words))}'


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Encoded(Answer):
    """The posterior q(z|x) of images.

    Attributes:
        mean: float32, (N, Z).
        log_variance: float32, (N, Z), natural logarithm. None if it was not requested, and for `ae`.
    """

    mean: NDArray[np.float32]
    log_variance: NDArray[np.float32] | None = None


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Decoded(ImageAnswer):
    """The images of latent vectors: the means of p(x|z).

    Attributes:
        images: uint8, (N, H, W, C).
    """


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Sampled(ImageAnswer):
    """Images drawn from the prior.

    Attributes:
        images: uint8, (N, H, W, C).
        latents: float32, (N, Z): the decoded latent vectors.
        seed: Seed of the noise. The same seed gives the same latents.
    """

    latents: NDArray[np.float32]
    seed: int


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Reconstructed(ImageAnswer):
    """Images encoded and decoded again.

    Attributes:
        images: uint8, (N, H, W, C).
    """


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
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
    manifest_json: str = field(repr=False)

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
