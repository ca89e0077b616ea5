"""Arrays of images, in files (.npy, .npz, idx) and in memory. Nothing is unpickled.

Dimensions: N = images, H, W, C = height, width and channels of an image.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convvae_service.images.idx import BadArray, is_idx, open_idx
from convvae_service.images.npy import open_npy, open_npz

__all__ = ["BadArray", "as_images", "as_uint8", "is_array_file", "is_array_name", "open_array", "open_labels"]

_BLOCK_VALUES = 1 << 20


def is_array_file(path: Path) -> bool:
    """Return whether `open_array` accepts `path`, judged by its name."""
    return path.suffix.lower() in (".npy", ".npz") or is_idx(path)


def is_array_name(name: str) -> bool:
    """Return whether `open_array` accepts a file of this name."""
    return is_array_file(Path(name))


def open_array(path: Path) -> NDArray[Any]:
    """Return the array of images in a file. It is mapped into memory unless it is compressed.

    Args:
        path: An .npy file, an idx file, or an .npz file with the key `images` or one array beside `labels`.

    Raises:
        BadArray: The file cannot be read, is damaged, or has no such array.
    """
    match path.suffix.lower():
        case ".npy":
            return open_npy(path)
        case ".npz":
            array = open_npz(path, "images")
            assert array is not None
            return array
    return open_idx(path)


def open_labels(path: Path) -> NDArray[Any] | None:
    """Return the array `labels` of an .npz file, or None if there is none.

    Raises:
        BadArray: The file cannot be read or is damaged.
    """
    return open_npz(path, "labels") if path.suffix.lower() == ".npz" else None


def as_images(array: NDArray[Any], *, name: str) -> NDArray[Any]:
    """Return a view of shape (N, H, W, C).

    Args:
        array: (N, H, W) or (N, H, W, C) with C 1 or 3; uint8, bool or floating-point.
        name: Name of the array in messages.

    Raises:
        BadArray: The array has another shape or type, or no images.
    """
    # A plain view, because slicing a memmap object is slower.
    array_NHWC = np.asarray(array)
    if array_NHWC.ndim == 3:
        array_NHWC = array_NHWC[..., None]
    if array_NHWC.ndim != 4 or array_NHWC.shape[3] not in (1, 3):
        raise BadArray(
            f"{name} has the shape {array.shape}: it must be (N, H, W) or (N, H, W, C) with C 1 or 3"
        )
    if 0 in array_NHWC.shape:
        raise BadArray(f"{name} has no images: its shape is {array.shape}")
    if array.dtype not in (np.uint8, np.bool_) and array.dtype.kind != "f":
        raise BadArray(f"{name} has the type {array.dtype}: images must be uint8, or floats in 0..1")
    return array_NHWC


def as_uint8(images_NHWC: NDArray[Any], *, name: str, first: int = 0) -> NDArray[np.uint8]:
    """Return images as contiguous uint8.

    Args:
        images_NHWC: Images from `as_images`; floating-point values must be in 0..1.
        name: Name of the array in messages.
        first: Index of the first row in messages.

    Raises:
        BadArray: A value is out of range; the message names the row.
    """
    if images_NHWC.dtype == np.uint8:
        return np.ascontiguousarray(images_NHWC)
    pixels_NHWC = np.empty(images_NHWC.shape, np.uint8)
    # In blocks of rows, because the arithmetic needs several times the memory of its result.
    step = max(1, _BLOCK_VALUES // max(1, pixels_NHWC[:1].size))
    for start in range(0, len(images_NHWC), step):
        rows_BHWC = images_NHWC[start : start + step]
        if rows_BHWC.dtype.itemsize == 2:  # float16 would round the product before it is rounded to a level
            rows_BHWC = rows_BHWC.astype(np.float32)
        if rows_BHWC.dtype != np.bool_:
            _check_range(rows_BHWC, name=name, first=first + start)
        pixels_NHWC[start : start + step] = np.rint(rows_BHWC * 255.0)
    return pixels_NHWC


def _check_range(images_BHWC: NDArray[Any], *, name: str, first: int) -> None:
    # NaN fails both comparisons, so it counts as outside.
    inside_B = ((images_BHWC >= 0) & (images_BHWC <= 1)).all(axis=(1, 2, 3))
    if inside_B.all():
        return
    row = int(np.argmin(inside_B))
    low, high = images_BHWC[row].min(), images_BHWC[row].max()
    found = f"values from {low:g} to {high:g}" if not np.isnan(low) else "NaN values"
    raise BadArray(f"{name}[{row + first}] has {found}: images must be uint8, or floats in 0..1")
