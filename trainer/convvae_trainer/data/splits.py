"""Splits of a data set by the hash of each image's pixels: test images where it has none, validation images.

The place of an image follows from its own pixels. Other images, names and the order have no part in it, and
copies of an image are on one side.

N = images.
"""

import numpy as np
from numpy.typing import NDArray

from convvae_trainer.errors import BadData

__all__ = [
    "MAX_VALIDATION",
    "MIN_TRAINING",
    "VALIDATION_SHARE",
    "held_out_to_test",
    "held_out_to_validate",
]

MIN_TRAINING = 2
VALIDATION_SHARE = 0.05
MAX_VALIDATION = 1000
# The highest hash of a test image: an image is held out if its hash is below 2^64 / 10.
HIGHEST_TEST_HASH = np.uint64((1 << 64) // 10)
# The lower half of a hash decides on validation: it has no part in the decision on the test.
LOWER_HALF = np.uint64((1 << 32) - 1)


def held_out_to_test(hashes_N: NDArray[np.uint64], *, name: str) -> tuple[NDArray[np.bool_], str]:
    """Return which images are held out to test on, bool of shape (N,), and a sentence on the choice.

    An image is held out if its hash falls into the lowest tenth of the range. If this leaves no test image,
    or fewer than two training images, the image of the lowest hash is held out instead, with its copies.

    Args:
        hashes_N: The hash of each image.
        name: The data set, as messages name it.

    Raises:
        BadData: There are fewer than 3 images, or all are the same.
    """
    count = len(hashes_N)
    if count < 3:
        raise BadData(
            f"{name} holds {count} images and no test images of its own: at least 3 are needed, since one of"
            " them, or a tenth, becomes a test image"
        )
    is_test_N = hashes_N <= HIGHEST_TEST_HASH
    reason = "falls into the lowest tenth"
    if not _is_possible(is_test_N):
        reason = "is the lowest, since a tenth of all hashes is too little or too much of so few images"
        is_test_N = _is_lowest(hashes_N)
    if not is_test_N.any():
        raise BadData(f"all {count} images of {name} are the same: a model needs others to be tested on")
    return is_test_N, f"{is_test_N.sum()} of {count} images are held out: the hash of their pixels {reason}"


def held_out_to_validate(hashes_N: NDArray[np.uint64], *, share: float | None) -> NDArray[np.bool_]:
    """Return which training images are held out to validate on, bool of shape (N,).

    An image validates if the lower half of its hash falls into the lowest `share` of the range. Without a
    given share it is `VALIDATION_SHARE`, halved until it holds at most `MAX_VALIDATION` images: a growing set
    then loses validation images to the training only where the share is halved once more. If the share holds
    no image, the image of the lowest half hash validates, if two training images are left.

    Args:
        hashes_N: The hash of each training image.
        share: 0 to 1. 0: no image validates. None: the default, with its limit.
    """
    if share == 0:
        return np.zeros(len(hashes_N), bool)
    halves_N = hashes_N & LOWER_HALF
    part = VALIDATION_SHARE if share is None else share
    is_validation_N = halves_N < part * 2**32
    while share is None and is_validation_N.sum() > MAX_VALIDATION:
        part /= 2
        is_validation_N = halves_N < part * 2**32
    return is_validation_N if _is_possible(is_validation_N) else _is_lowest(halves_N)


def _is_possible(is_held_out_N: NDArray[np.bool_]) -> bool:
    """Return whether images are held out, and enough are left for training."""
    return bool(1 <= is_held_out_N.sum() <= len(is_held_out_N) - MIN_TRAINING)


def _is_lowest(hashes_N: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Return which images have the lowest hash of those that leave enough images for training."""
    values, counts = np.unique(hashes_N, return_counts=True)
    allowed = values[len(hashes_N) - counts >= MIN_TRAINING]
    return np.isin(hashes_N, allowed[:1])
