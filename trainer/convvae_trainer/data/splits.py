"""Splits of a data set by the hash of each image's pixels: test images where it has none, validation images.

The place of an image follows from its own pixels. Other images, names and the order have no part in it, and
copies of an image are on one side.

N = images.
"""

import numpy as np
from numpy.typing import NDArray

from convvae_trainer.data.labelled_images import LabelledImages
from convvae_trainer.data.pixel_hash import pixel_hashes
from convvae_trainer.errors import BadData

__all__ = ["MIN_TRAINING", "hold_out_test", "hold_out_validation", "num_validation"]

MIN_TRAINING = 2
# The highest hash of a test image: an image is held out if its hash is below 2^64 / 10.
HIGHEST_TEST_HASH = np.uint64((1 << 64) // 10)
HELD_OUT = 0.1
VALIDATION_SEED = 1


def hold_out_test(data: LabelledImages, *, name: str) -> tuple[LabelledImages, LabelledImages, str]:
    """Return (training part, test part, a sentence on the split).

    An image is held out if its hash falls into the lowest tenth of the range. If this leaves no test image,
    or fewer than two training images, the image of the lowest hash is held out instead, with its copies.

    Raises:
        BadData: There are fewer than 3 images, or all are the same.
    """
    count = len(data.images)
    if count < 3:
        raise BadData(
            f"{name} holds {count} images and no test images of its own: at least 3 are needed, since one of"
            " them, or a tenth, becomes a test image"
        )
    hashes_N = pixel_hashes(data.images)
    is_test_N = hashes_N <= HIGHEST_TEST_HASH
    reason = "falls into the lowest tenth"
    if not (1 <= is_test_N.sum() <= count - MIN_TRAINING):
        reason = "is the lowest, since a tenth of all hashes is too little or too much of so few images"
        is_test_N = _is_lowest(hashes_N)
    if not is_test_N.any():
        raise BadData(f"all {count} images of {name} are the same: a model needs others to be tested on")
    text = f"{is_test_N.sum()} of {count} images are held out: the hash of their pixels {reason}"
    return data.take(~is_test_N), data.take(is_test_N), text


def _is_lowest(hashes_N: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Return which images have the lowest hash of those that leave enough images for training."""
    values, counts = np.unique(hashes_N, return_counts=True)
    allowed = values[len(hashes_N) - counts >= MIN_TRAINING]
    return np.isin(hashes_N, allowed[:1])


def hold_out_validation(images: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return (training images, validation images). A tenth, drawn by a fixed seed, is for validation."""
    order = np.random.default_rng(VALIDATION_SEED).permutation(len(images))
    count = num_validation(len(images))
    return images[order[count:]], images[order[:count]]


def num_validation(num_images: int) -> int:
    """Return how many of `num_images` training images `hold_out_validation` takes for validation."""
    return max(1, round(num_images * HELD_OUT))
