"""Arrays of any accepted kind to uint8 NHWC: .npy, .npz, idx files and what torchvision holds."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convvae_service.images import BadArray, as_images, as_uint8, open_array, open_labels
from convvae_trainer.errors import BadData
from convvae_trainer.settings.image_size import MAX_SIDE, MIN_SIDE

__all__ = ["check_size", "read_array_file", "to_nhwc"]


def read_array_file(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64] | None]:
    """Read images, and labels where the file has them.

    Args:
        path: A .npy file; a .npz file with the key `images` or one array only, and perhaps `labels`; or an
            idx file.

    Returns:
        (images, labels): uint8 of shape (N, H, W, C), and int64 of shape (N,) or None.

    Raises:
        BadData: The file cannot be read, or its array is none of images.
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
        name: What messages call it.

    Raises:
        BadData: Another shape or type, no images, or values out of range.
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
