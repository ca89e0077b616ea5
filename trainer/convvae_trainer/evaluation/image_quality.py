"""The similarity of images to other images, and their sharpness.

B = batch, C = channels, H and W = height and width, N = all images. Pixels are float in 0..1.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

__all__ = [
    "MAX_PSNR_DB",
    "QualityAccumulator",
    "ReconstructionQuality",
    "log_ratio",
    "mse",
    "psnr",
    "reconstruction_quality",
    "sharpness",
    "ssim",
]

# The ratio of equal images has no bound: it is cut here.
MAX_PSNR_DB = 100.0
# Wang et al. 2004, section III-C.
WINDOW = 11
WINDOW_SIGMA = 1.5
K1, K2 = 0.01, 0.03
_LAPLACIAN = ((0.0, 1.0, 0.0), (1.0, -4.0, 1.0), (0.0, 1.0, 0.0))
# Values of the images that are compared at once, which bounds the memory.
BATCH_VALUES = 1 << 21


@dataclass(frozen=True, kw_only=True, slots=True)
class ReconstructionQuality:
    """Means over all images and their reconstructions.

    `mse` is the squared error of a pixel in 0..1. `sharpness` is the mean sharpness of the reconstructions,
    `input_sharpness` that of the images.
    """

    mse: float
    psnr_db: float
    ssim: float
    sharpness: float
    input_sharpness: float

    @property
    def sharpness_distance(self) -> float | None:
        """The distance |ln(sharpness / input_sharpness)|; None if either has no edge.

        0 is best: noise is sharp too, so that more sharpness is not always better.
        """
        return log_ratio(self.sharpness, self.input_sharpness)


class QualityAccumulator:
    """Sums the quality of batches."""

    def __init__(self) -> None:
        self._sums: list[Tensor] = []
        self._count = 0

    @torch.no_grad()
    def add(self, x_BCHW: Tensor, y_BCHW: Tensor) -> None:
        """Add a batch of images `x` and their reconstructions `y`, on any device."""
        mse_B = mse(x_BCHW, y_BCHW)
        metrics = (mse_B, psnr(mse_B), ssim(x_BCHW, y_BCHW), sharpness(y_BCHW), sharpness(x_BCHW))
        self._sums.append(torch.stack([metric_B.double().sum() for metric_B in metrics]))
        self._count += len(x_BCHW)

    def quality(self) -> ReconstructionQuality:
        """Return the means over all batches; there must be at least one."""
        # In the order of `metrics` in `add`.
        means = (torch.stack(self._sums).sum(0) / self._count).tolist()
        return ReconstructionQuality(
            mse=means[0], psnr_db=means[1], ssim=means[2], sharpness=means[3], input_sharpness=means[4]
        )


def reconstruction_quality(
    images_NHWC: NDArray[Any], reconstructions_NHWC: NDArray[Any]
) -> ReconstructionQuality:
    """Return the quality of reconstructions, row by row.

    Args:
        images_NHWC: The images, uint8 or float in 0..1.
        reconstructions_NHWC: Their reconstructions, uint8 or float in 0..1, of the same shape.

    Raises:
        ValueError: The shapes differ, or there are no images.
    """
    if images_NHWC.shape != reconstructions_NHWC.shape or not len(images_NHWC):
        raise ValueError(f"images of {images_NHWC.shape} do not pair with {reconstructions_NHWC.shape}")
    accumulator = QualityAccumulator()
    for x_BCHW, y_BCHW in zip(_batches(images_NHWC), _batches(reconstructions_NHWC), strict=True):
        accumulator.add(x_BCHW, y_BCHW)
    return accumulator.quality()


def log_ratio(a: float, b: float) -> float | None:
    """Return |ln(a / b)|, or None if a or b is 0."""
    return abs(math.log(a / b)) if a > 0 and b > 0 else None


def mse(x_BCHW: Tensor, y_BCHW: Tensor) -> Tensor:
    """Return the mean squared error of a pixel of each pair, of shape (B,)."""
    return (x_BCHW - y_BCHW).square().flatten(1).mean(1)


def psnr(mse_B: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio of mean squared errors, in dB, at most `MAX_PSNR_DB`."""
    return -10 * mse_B.clamp(min=10 ** (-MAX_PSNR_DB / 10)).log10()


def ssim(x_BCHW: Tensor, y_BCHW: Tensor) -> Tensor:
    """Return the structural similarity of each pair, of shape (B,) (Wang et al. 2004, section III).

    The window is a Gaussian of 11x11 pixels with sigma 1.5, at all places where it lies inside the image; on
    smaller images it is the largest window of odd size that fits. K1 = 0.01, K2 = 0.03. Variances have no
    Bessel correction. The result is the mean over places and channels.
    """
    batch, _, height, width = x_BCHW.shape
    side = min(WINDOW, height, width)
    window = _window(side - 1 + side % 2)
    # Shifted pixels have the same variances, and keep more digits around 0.
    a, b = x_BCHW.reshape(-1, 1, height, width) - 0.5, y_BCHW.reshape(-1, 1, height, width) - 0.5
    mean_a, mean_b = _filtered(a, window), _filtered(b, window)
    variance_a = _filtered(a * a, window) - mean_a.square()
    variance_b = _filtered(b * b, window) - mean_b.square()
    covariance = _filtered(a * b, window) - mean_a * mean_b
    mean_a, mean_b = mean_a + 0.5, mean_b + 0.5
    c1, c2 = K1**2, K2**2
    similarity = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    similarity = similarity / ((mean_a.square() + mean_b.square() + c1) * (variance_a + variance_b + c2))
    return similarity.view(batch, -1).mean(1)


def _window(side: int) -> list[float]:
    weights = [math.exp(-0.5 * ((offset - side // 2) / WINDOW_SIGMA) ** 2) for offset in range(side)]
    return [weight / sum(weights) for weight in weights]


def _filtered(x_B1HW: Tensor, window: list[float]) -> Tensor:
    """Return means weighted by the window, along columns and then along rows."""
    # Sums of shifted images. On a CPU they are 12 times as fast as a convolution at 64x64, 3 times at 28x28.
    height, width = (side - len(window) + 1 for side in x_B1HW.shape[2:])
    along = x_B1HW[:, :, :height] * window[0]
    for shift, weight in enumerate(window[1:], start=1):
        along.add_(x_B1HW[:, :, shift : shift + height], alpha=weight)
    across = along[..., :width] * window[0]
    for shift, weight in enumerate(window[1:], start=1):
        across.add_(along[..., shift : shift + width], alpha=weight)
    return across


def sharpness(x_BCHW: Tensor) -> Tensor:
    """Return the variance of the Laplacian of each image, of shape (B,).

    Channels are averaged first. The kernel is (0 1 0; 1 -4 1; 0 1 0), inside the image only (Pech-Pacheco et
    al. 2000; for generated images Tolstikhin et al. 2018, appendix).
    """
    laplacian = torch.tensor(_LAPLACIAN, dtype=x_BCHW.dtype, device=x_BCHW.device)
    edges_B1HW = functional.conv2d(x_BCHW.mean(1, keepdim=True), laplacian.view(1, 1, 3, 3))
    return edges_B1HW.flatten(1).var(1, unbiased=False)


def _batches(images_NHWC: NDArray[Any]) -> Iterator[Tensor]:
    size = max(1, BATCH_VALUES // math.prod(images_NHWC.shape[1:]))
    for low in range(0, len(images_NHWC), size):
        # A copy: the array may be a file mapped into memory, which torch must not write to.
        images_BHWC = np.array(images_NHWC[low : low + size])
        scale = 255 if images_BHWC.dtype == np.uint8 else 1
        yield torch.from_numpy(images_BHWC).permute(0, 3, 1, 2).float().contiguous() / scale
