"""Splits of a data set: test images where it has none of its own, and validation images."""

import numpy as np
from numpy.typing import NDArray

from convvae_trainer.data.labelled_images import LabelledImages
from convvae_trainer.errors import BadData

__all__ = ["hold_out_test", "hold_out_validation", "num_validation"]

HELD_OUT = 0.1
TEST_SEED = 0
VALIDATION_SEED = 1


def hold_out_test(data: LabelledImages, *, name: str) -> tuple[LabelledImages, LabelledImages, str]:
    """Return (training part, test part, a sentence on the split). A tenth of the images is held out.

    Raises:
        BadData: There are fewer than 3 images.
    """
    count = len(data.images)
    if count < 3:
        raise BadData(
            f"{name} holds {count} images and no test images of its own: at least 3 are needed, since one of"
            " them, or a tenth, becomes a test image"
        )
    order = np.random.default_rng(TEST_SEED).permutation(count)
    num_test = max(1, round(count * HELD_OUT))
    text = f"the last {num_test} of {count} images after a shuffle by seed {TEST_SEED} are held out"
    return data.take(order[:-num_test]), data.take(order[-num_test:]), text


def hold_out_validation(images: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return (training images, validation images). A tenth, drawn by a fixed seed, is for validation."""
    order = np.random.default_rng(VALIDATION_SEED).permutation(len(images))
    count = num_validation(len(images))
    return images[order[count:]], images[order[:count]]


def num_validation(num_images: int) -> int:
    """Return how many of `num_images` training images `hold_out_validation` takes for validation."""
    return max(1, round(num_images * HELD_OUT))
