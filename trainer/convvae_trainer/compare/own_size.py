"""The size at which images have edges of their own.

The variance of the Laplacian of anything smooth is a 16th of that at half the size. Of 8x8 digits that were
enlarged to 32x32 it is a tenth, of MNIST and CIFAR-10 four tenths. At the full size of enlarged images, noise
of a few grey levels is as sharp as they are, so that sharpness says nothing there.

N = images, H and W = height and width, C = channels.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convvae_trainer.compare.half_size import halved
from convvae_trainer.evaluation.image_quality import ReconstructionQuality, reconstruction_quality

__all__ = ["SizedSharpness", "own_halvings", "sized_sharpness"]

# Images have no edges of their own where their sharpness is below this share of that at half the size.
SMOOTH = 0.2
# Sides of 8 are halved no more: the Laplacian of 4x4 pixels has four values.
MIN_SIDE = 16
# A mean over so many images is exact enough to tell a tenth from four tenths.
MAX_IMAGES = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class SizedSharpness:
    """The quality of reconstructions at the images' own size.

    Attributes:
        halvings: How often the images were halved to their own size; 0 unless they were enlarged.
        height: Height of the own size in pixels.
        width: Its width.
        own_size: The quality there.
        half_size: The quality at half of it.
        is_noisy: Whether the reconstructions have edges at a larger size, where the images have none.
    """

    halvings: int
    height: int
    width: int
    own_size: ReconstructionQuality
    half_size: ReconstructionQuality
    is_noisy: bool


def own_halvings(images_NHWC: NDArray[np.uint8]) -> int:
    """Return how often images are halved until they have edges of their own: 0 unless they were enlarged."""
    images_NHWC = images_NHWC[:: max(1, len(images_NHWC) // MAX_IMAGES)]
    halvings, sharpness = 0, _sharpness(images_NHWC)
    while min(images_NHWC.shape[1:3]) >= MIN_SIDE:
        images_NHWC = halved(images_NHWC)
        half_sharpness = _sharpness(images_NHWC)
        if sharpness >= SMOOTH * half_sharpness:
            break
        halvings, sharpness = halvings + 1, half_sharpness
    return halvings


def sized_sharpness(
    images_NHWC: NDArray[np.uint8],
    rebuilt_NHWC: NDArray[np.uint8],
    halvings: int,
    at_full_size: ReconstructionQuality,
) -> SizedSharpness:
    """Return the quality of reconstructions at the own size of the images.

    Args:
        images_NHWC: The images, uint8 (N, H, W, C).
        rebuilt_NHWC: Their reconstructions.
        halvings: `own_halvings` of the images.
        at_full_size: The quality at full size.
    """
    is_noisy = halvings > 0 and own_halvings(rebuilt_NHWC) < halvings
    for _ in range(halvings):
        images_NHWC, rebuilt_NHWC = halved(images_NHWC), halved(rebuilt_NHWC)
    return SizedSharpness(
        halvings=halvings,
        height=images_NHWC.shape[1],
        width=images_NHWC.shape[2],
        own_size=reconstruction_quality(images_NHWC, rebuilt_NHWC) if halvings else at_full_size,
        half_size=reconstruction_quality(halved(images_NHWC), halved(rebuilt_NHWC)),
        is_noisy=is_noisy,
    )


def _sharpness(images_NHWC: NDArray[np.uint8]) -> float:
    return reconstruction_quality(images_NHWC, images_NHWC).input_sharpness
