"""Arrays of images in files (.npy, .npz, idx) and in memory, as uint8 of shape (N, H, W, C)."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convvae_service.images import BadArray, as_images, as_uint8, open_array, open_labels
from convvae_trainer.errors import BadData
from convvae_trainer.settings.image_size import MAX_SIDE, MIN_SIDE

__all__ = ["check_size", "read_array_file", "to_nhwc"]


def read_array_file(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64] | None]:
    """Read images, and labels if the file has them.

    Args:
        path: An .npy file, an idx file, or an .npz file with the key `images` or a single array, and
            optionally `labels`.

    Returns:
        (images, labels): uint8 of shape (N, H, W, C), and int64 of shape (N,) or None.

    Raises:
        BadData: The file cannot be read, or its array does not hold images.
    """
    try:
        array, labels = open_array(path), open_labels(path)
    except BadArray as error:
        raise BadData(f"{error} (in {path.resolve().parent})") from None
    images = to_nhwc(array, name=path.name)
    if labels is None:
        return images, None
    if labels.shape != (len(images),) or labels.dtype.kind not in "iub":
        raise BadData(
            f"labels of {path.name} are {labels.dtype} of shape {labels.shape}:"
            f" {len(images)} integers are needed, one for each image"
        )
    return images, labels.astype(np.int64)


def to_nhwc(array: NDArray[Any], *, name: str) -> NDArray[np.uint8]:
    """Return images as uint8 of shape (N, H, W, C).

    Args:
        array: (N, H, W) or (N, H, W, C) with C of 1 or 3; uint8, bool, or floating-point within 0 to 1.
        name: The array's name in error messages.

    Raises:
        BadData: The array has another shape or type, holds no images, or has values out of range.
    """
    try:
        return as_uint8(as_images(array, name=name), name=name)
    except BadArray as error:
        raise BadData(str(error)) from None


def check_size(height: int, width: int, *, name: str) -> None:
    """Raise `BadData` unless both sides are within 8 to 256 pixels."""
    if not (MIN_SIDE <= height <= MAX_SIDE and MIN_SIDE <= width <= MAX_SIDE):
        raise BadData(
            f"images of {name} are {height}x{width}: each side must be {MIN_SIDE} to {MAX_SIDE} pixels;"
            " --image-size resizes them"
        )
