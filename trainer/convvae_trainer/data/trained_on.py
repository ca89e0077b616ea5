"""The images that models were trained on, known by their fingerprints: no test image is one of them.

An image counts as trained on if its pixels, at the model's size, are those of a training image. N = images.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from convvae_trainer.data.labelled_images import LabelledImages
from convvae_trainer.data.pixel_hash import pixel_hashes
from convvae_trainer.errors import BadData

__all__ = [
    "Fingerprints",
    "SeenCounts",
    "UnseenImages",
    "fingerprints",
    "left_out_text",
    "unseen",
    "without_copies",
]

# The fingerprints of the training images of a model: uint64 in ascending order.
Fingerprints = NDArray[np.uint64]
# For each model the number of images that it was trained on; None: it cannot be told.
SeenCounts = dict[str, int | None]


class UnseenImages(NamedTuple):
    """Images that no model was trained on, their rows among all, and how many of the others by model."""

    data: LabelledImages
    rows: NDArray[np.intp]
    left_out: SeenCounts


def fingerprints(images_NHWC: NDArray[np.uint8]) -> Fingerprints:
    """Return the fingerprints of images, each once."""
    return np.unique(pixel_hashes(images_NHWC))


def unseen(data: LabelledImages, trained_on: Mapping[str, Fingerprints | None], *, name: str) -> UnseenImages:
    """Leave out the images that a model was trained on.

    Args:
        data: The images that are to be test images.
        trained_on: The fingerprints of each model; None: they are not known, and nothing is left out for it.
        name: The data set's name in the error message.

    Raises:
        BadData: No image is left.
    """
    hash_N = pixel_hashes(data.images) if any(known is not None for known in trained_on.values()) else None
    is_seen_N = np.zeros(len(data.images), bool)
    left_out: SeenCounts = dict.fromkeys(trained_on)
    for model, known in trained_on.items():
        if known is not None and hash_N is not None:
            is_known_N = np.isin(hash_N, known)
            left_out[model] = int(is_known_N.sum())
            is_seen_N |= is_known_N
    rows = np.flatnonzero(~is_seen_N)
    if not len(rows):
        raise BadData(
            f"no image of {name} is left to test on, without {left_out_text(left_out)}:"
            " give images that were not trained on"
        )
    # All images are not copied: they may be a file mapped into memory.
    return UnseenImages(data.take(rows) if is_seen_N.any() else data, rows, left_out)


def without_copies(
    data: LabelledImages,
    hashes: NDArray[np.uint64],
    *,
    name: str,
    part: str = "test",
    other_part: str = "training",
) -> tuple[LabelledImages, str]:
    """Return the images of a part that are not copies of another part's, and a sentence on the rest or "".

    Args:
        data: The images of the part.
        hashes: The hashes of the other part's images.
        name: The data set's name in the error message.
        part: The name of the part in the error message.
        other_part: The name of the other part.

    Raises:
        BadData: All images are copies.
    """
    is_copy_N = np.isin(pixel_hashes(data.images), hashes)
    if not (count := int(is_copy_N.sum())):
        return data, ""
    if count == len(data.images):
        raise BadData(
            f"all {count} {part} images of {name} are copies of {other_part} images: give other ones"
        )
    text = f"1 of them is left out, a copy of a {other_part} image"
    if count > 1:
        text = f"{count} of them are left out, copies of {other_part} images"
    return data.take(np.flatnonzero(~is_copy_N)), text


def left_out_text(left_out: SeenCounts) -> str:
    """Return for example "746 training images of a, no training images of b; for c it cannot be told"."""
    counts = [_count_text(count, model) for model, count in left_out.items() if count]
    if clean := [model for model, count in left_out.items() if count == 0]:
        are_all = 1 < len(clean) == len(left_out)
        counts.append(f"no training images of {'any model' if are_all else ', '.join(clean)}")
    unknown = [model for model, count in left_out.items() if count is None]
    told = [", ".join(counts)] if counts else []
    untold = [f"for {', '.join(unknown)} it cannot be told"] if unknown else []
    return "; ".join(told + untold)


def _count_text(count: int, model: str) -> str:
    return f"{count} training {'image' if count == 1 else 'images'} of {model}"
