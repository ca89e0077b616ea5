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

__all__ = [
    "MAX_VALIDATION",
    "MIN_TRAINING",
    "VALIDATION_SHARE",
    "hold_out_test",
    "hold_out_validation",
]

MIN_TRAINING = 2
VALIDATION_SHARE = 0.05
MAX_VALIDATION = 1000
# The highest hash of a test image: an image is held out if its hash is below 2^64 / 10.
HIGHEST_TEST_HASH = np.uint64((1 << 64) // 10)
# The lower half of a hash decides on validation: it has no part in the decision on the test.
LOWER_HALF = np.uint64((1 << 32) - 1)


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
    if not _is_possible(is_test_N):
        reason = "is the lowest, since a tenth of all hashes is too little or too much of so few images"
        is_test_N = _is_lowest(hashes_N)
    if not is_test_N.any():
        raise BadData(f"all {count} images of {name} are the same: a model needs others to be tested on")
    text = f"{is_test_N.sum()} of {count} images are held out: the hash of their pixels {reason}"
    return data.take(~is_test_N), data.take(is_test_N), text


def hold_out_validation(
    data: LabelledImages, *, share: float | None
) -> tuple[LabelledImages, LabelledImages | None]:
    """Return (training part, validation part) of training images; the validation part is None if it is empty.

    An image validates if the lower half of its hash falls into the lowest `share` of the range. Without a
    given share it is `VALIDATION_SHARE`, halved until it holds at most `MAX_VALIDATION` images: a growing set
    then loses validation images to the training only where the share is halved once more. If the share holds
    no image, the image of the lowest half hash validates, if two training images are left.

    Args:
        data: The training images.
        share: 0 to 1. 0: there is no validation part. None: the default, with its limit.
    """
    if share == 0:
        return data, None
    halves_N = pixel_hashes(data.images) & LOWER_HALF
    part = VALIDATION_SHARE if share is None else share
    is_validation_N = halves_N < part * 2**32
    while share is None and is_validation_N.sum() > MAX_VALIDATION:
        part /= 2
        is_validation_N = halves_N < part * 2**32
    if not _is_possible(is_validation_N):
        is_validation_N = _is_lowest(halves_N)
    if not is_validation_N.any():
        return data, None
    return data.take(~is_validation_N), data.take(is_validation_N)


def _is_possible(is_held_out_N: NDArray[np.bool_]) -> bool:
    """Return whether images are held out, and enough are left for training."""
    return bool(1 <= is_held_out_N.sum() <= len(is_held_out_N) - MIN_TRAINING)


def _is_lowest(hashes_N: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Return which images have the lowest hash of those that leave enough images for training."""
    values, counts = np.unique(hashes_N, return_counts=True)
    allowed = values[len(hashes_N) - counts >= MIN_TRAINING]
    return np.isin(hashes_N, allowed[:1])
