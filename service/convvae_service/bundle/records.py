"""The records inside a manifest: image, likelihood, resizing, parity, accuracy and training."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from convvae_service.bundle.errors import BundleError

__all__ = ["Accuracy", "ImageShape", "LikelihoodSpec", "Parity", "Resize", "Training"]

_LIKELIHOOD_CONSTANTS = {
    "bernoulli": "probability_clamp",
    "gaussian": "sigma",
    "discretised-logistic": "scale",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageShape:
    """The size of an image in pixels and its channels: 1 (grey) or 3 (RGB)."""

    height: int
    width: int
    channels: int

    def __post_init__(self) -> None:
        if not (1 <= self.height <= 4096 and 1 <= self.width <= 4096):
            raise BundleError(f"image is {self.height}x{self.width}: height and width must be 1 to 4096")
        if self.channels not in (1, 3):
            raise BundleError(f"image.channels is {self.channels}: it must be 1 (grey) or 3 (RGB)")

    def __str__(self) -> str:
        return f"{self.height}x{self.width}x{self.channels}"

    @property
    def num_values(self) -> int:
        """Number of values in one image, equal to its bytes as uint8."""
        return self.height * self.width * self.channels

    @property
    def as_tuple(self) -> tuple[int, int, int]:
        """(height, width, channels), the shape of one image's array."""
        return (self.height, self.width, self.channels)


@dataclass(frozen=True, kw_only=True, slots=True)
class LikelihoodSpec:
    """The distribution p(x|z) of one image, and its constant.

    Attributes:
        name: `bernoulli`, `gaussian` or `discretised-logistic`.
        probability_clamp: c of a Bernoulli, whose probabilities are clamped to [c, 1 - c]. Else None.
        sigma: Standard deviation of a Gaussian, for pixels in 0..1. Else None.
        scale: Scale of a discretised logistic, for pixels in 0..1. Else None.
    """

    name: str
    probability_clamp: float | None = None
    sigma: float | None = None
    scale: float | None = None

    def __post_init__(self) -> None:
        if self.name not in _LIKELIHOOD_CONSTANTS:
            known = ", ".join(_LIKELIHOOD_CONSTANTS)
            raise BundleError(f"likelihood.name is {self.name[:80]!r}: it must be one of {known}")
        for owner, constant in _LIKELIHOOD_CONSTANTS.items():
            value = getattr(self, constant)
            if owner != self.name and value is not None:
                raise BundleError(f"likelihood.{constant} does not belong to {self.name!r}")
            if owner == self.name and (value is None or not math.isfinite(value) or value <= 0):
                raise BundleError(f"likelihood.{constant} of {self.name!r} must be above 0, not {value}")
        if self.probability_clamp is not None and self.probability_clamp >= 0.5:
            raise BundleError("likelihood.probability_clamp must be below 0.5")


@dataclass(frozen=True, kw_only=True, slots=True)
class Resize:
    """The rule that brings an image of another size to the model's size.

    Attributes:
        mode: `crop` scales until the target is covered and keeps the centre. `stretch` ignores the aspect
            ratio.
        filter: A Pillow resampling filter.
        decode: `full` decodes a JPEG at its size. `scaled` divides height and width by 8, 4 or 2 while it
            decodes: the largest of them that leaves at least twice the model's height and width, and 8
            pixels. With the filter `nearest` both decode at full size.
        library: Name and version of the library that resized the training images.
    """

    mode: Literal["crop", "stretch"] = "crop"
    filter: Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"] = "bicubic"
    # A manifest without the key is of a model that was trained on full pictures.
    decode: Literal["full", "scaled"] = "full"
    library: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Parity:
    """The largest absolute differences between a precision's graphs and their reference, in ONNX Runtime.

    The reference of fp32 is PyTorch. The reference of the other precisions are the fp32 graphs.

    Attributes:
        batches: Batch sizes that were compared.
        mean: Of the posterior mean.
        log_variance: Of the posterior log-variance; None for `ae`.
        image_steps: Of the uint8 image, in steps of 1/255.
        pixel_mean: Of the pixel mean, in 0..1.
    """

    batches: tuple[int, ...]
    mean: float
    log_variance: float | None
    image_steps: int
    pixel_mean: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Accuracy:
    """The change of a precision's results from those of the fp32 graphs, measured on test images.

    Attributes:
        images: Number of test images.
        cosine_mean: Mean cosine between the posterior means of an image in both precisions.
        cosine_p01: The 1st percentile of these cosines.
        psnr_loss_db: Decrease of the PSNR of reconstructions, in dB.
        elbo_change: Change of the ELBO at the posterior mean, in nats per image; None for `ae`.
    """

    images: int
    cosine_mean: float
    cosine_p01: float
    psnr_loss_db: float
    elbo_change: float | None

    @classmethod
    def exact(cls, *, has_elbo: bool) -> Self:
        """Return the entry of fp32 itself, which needs no images. An `ae` has no ELBO."""
        change = 0.0 if has_elbo else None
        return cls(images=0, cosine_mean=1.0, cosine_p01=1.0, psnr_loss_db=0.0, elbo_change=change)


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """The origin of the weights. `images` counts training images; `metrics` are named with their unit."""

    dataset: str
    images: int
    epochs: float
    seed: int
    commit: str
    date: str = ""
    libraries: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
