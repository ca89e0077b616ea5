"""How near images are to others, and how sharp they are.

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
    "Quality",
    "QualityAccumulator",
    "log_ratio",
    "psnr",
    "quality_of",
    "sharpness",
    "sharpness_of",
    "ssim",
]

# Of images that are equal up to this, or quite equal: their ratio is without bounds.
MAX_PSNR_DB = 100.0
# Wang et al. 2004, section III-C.
WINDOW = 11
WINDOW_SIGMA = 1.5
K1, K2 = 0.01, 0.03
_LAPLACIAN = ((0.0, 1.0, 0.0), (1.0, -4.0, 1.0), (0.0, 1.0, 0.0))
# Values of a batch that `quality_of` takes at once.
BATCH_VALUES = 1 << 21


@dataclass(frozen=True, kw_only=True, slots=True)
class Quality:
    """Means over all images of a set and of what stands for them.

    `mse` is the squared error of a pixel in 0..1. `sharpness` and `input_sharpness` are means of `sharpness`
    over either set; `sharpness_distance` is |ln(sharpness / input_sharpness)|, 0 being best since noise is
    sharp too, and None where one of the sets has no edge at all.
    """

    mse: float
    psnr_db: float
    ssim: float
    sharpness: float
    input_sharpness: float

    @property
    def sharpness_distance(self) -> float | None:
        """Of the two sets."""
        return log_ratio(self.sharpness, self.input_sharpness)


class QualityAccumulator:
    """Sums the quality of batches up."""

    def __init__(self) -> None:
        self._sums: list[Tensor] = []
        self._count = 0

    @torch.no_grad()
    def add(self, x_BCHW: Tensor, y_BCHW: Tensor) -> None:
        """Take a batch of images and of what stands for them in, on any device."""
        mse_B = _mse(x_BCHW, y_BCHW)
        figures = (mse_B, _psnr(mse_B), ssim(x_BCHW, y_BCHW), sharpness(y_BCHW), sharpness(x_BCHW))
        self._sums.append(torch.stack([figure_B.double().sum() for figure_B in figures]))
        self._count += len(x_BCHW)

    def quality(self) -> Quality:
        """Return the means over all batches; there must be one."""
        mse, psnr_db, similarity, ours, theirs = (torch.stack(self._sums).sum(0) / self._count).tolist()
        return Quality(mse=mse, psnr_db=psnr_db, ssim=similarity, sharpness=ours, input_sharpness=theirs)


def quality_of(images_NHWC: NDArray[Any], others_NHWC: NDArray[Any]) -> Quality:
    """Return the quality of `others` as a stand-in for `images`, row by row.

    Args:
        images_NHWC: uint8, or float in 0..1.
        others_NHWC: uint8, or float in 0..1, of the same shape.

    Raises:
        ValueError: The shapes differ, or there are no images.
    """
    if images_NHWC.shape != others_NHWC.shape or not len(images_NHWC):
        raise ValueError(f"images of {images_NHWC.shape} do not pair with {others_NHWC.shape}")
    tally = QualityAccumulator()
    for x_BCHW, y_BCHW in zip(_batches(images_NHWC), _batches(others_NHWC), strict=True):
        tally.add(x_BCHW, y_BCHW)
    return tally.quality()


def sharpness_of(images_NHWC: NDArray[Any]) -> float:
    """Return the mean of `sharpness` over images, uint8 or float in 0..1."""
    total = sum(sharpness(x_BCHW).double().sum().item() for x_BCHW in _batches(images_NHWC))
    return total / len(images_NHWC)


def log_ratio(ours: float, theirs: float) -> float | None:
    """Return |ln(ours / theirs)|, None where one is 0."""
    return abs(math.log(ours / theirs)) if ours > 0 and theirs > 0 else None


def psnr(x_BCHW: Tensor, y_BCHW: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio of each pair in dB, of shape (B,), at most `MAX_PSNR_DB`."""
    return _psnr(_mse(x_BCHW, y_BCHW))


def _mse(x_BCHW: Tensor, y_BCHW: Tensor) -> Tensor:
    return (x_BCHW - y_BCHW).square().flatten(1).mean(1)


def _psnr(mse_B: Tensor) -> Tensor:
    return -10 * mse_B.clamp(min=10 ** (-MAX_PSNR_DB / 10)).log10()


def ssim(x_BCHW: Tensor, y_BCHW: Tensor) -> Tensor:
    """Return the structural similarity of each pair, of shape (B,) (Wang et al. 2004, section III).

    A Gaussian window of 11x11 and sigma 1.5 where it lies wholly inside the image, K1 = 0.01, K2 = 0.03,
    variances of the window without Bessel's correction, the mean over places and channels. On images of less
    than 11 pixels a side the window is the largest odd one that fits.
    """
    batch, _, height, width = x_BCHW.shape
    side = min(WINDOW, height, width)
    window = _window(side - 1 + side % 2)
    # Variances are the same of shifted pixels, and lose fewer digits around 0.
    a, b = x_BCHW.reshape(-1, 1, height, width) - 0.5, y_BCHW.reshape(-1, 1, height, width) - 0.5
    mean_a, mean_b = _filtered(a, window), _filtered(b, window)
    variance_a = _filtered(a * a, window) - mean_a.square()
    variance_b = _filtered(b * b, window) - mean_b.square()
    covariance = _filtered(a * b, window) - mean_a * mean_b
    mean_a, mean_b = mean_a + 0.5, mean_b + 0.5
    c1, c2 = K1**2, K2**2
    likeness = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    likeness = likeness / ((mean_a.square() + mean_b.square() + c1) * (variance_a + variance_b + c2))
    return likeness.view(batch, -1).mean(1)


def _window(side: int) -> list[float]:
    weights = [math.exp(-0.5 * ((offset - side // 2) / WINDOW_SIGMA) ** 2) for offset in range(side)]
    return [weight / sum(weights) for weight in weights]


def _filtered(x_B1HW: Tensor, window: list[float]) -> Tensor:
    """Return weighted means, first along columns, then along rows."""
    # Sums of shifted images: on a CPU 12 times as fast as a convolution at 64x64, 3 times at 28x28.
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
    al. 2000; of generated images Tolstikhin et al. 2018, appendix).
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
