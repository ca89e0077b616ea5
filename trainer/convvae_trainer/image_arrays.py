"""Arrays of any accepted kind to uint8 NHWC: .npy, .npz, idx files and what torchvision holds."""

import struct
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convvae_trainer.errors import BadData
from convvae_trainer.idx import is_idx, read_idx

__all__ = ["ARRAY_SUFFIXES", "is_array_file", "read_array_file", "to_nhwc"]

ARRAY_SUFFIXES = (".npy", ".npz")


def is_array_file(path: Path) -> bool:
    """Tell by the name whether `read_array_file` takes `path`."""
    return path.suffix.lower() in ARRAY_SUFFIXES or is_idx(path)


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
    if is_idx(path):
        return to_nhwc(read_idx(path), name=str(path)), None
    try:
        with path.open("rb") as file:
            # Pickled objects are code: they are never loaded.
            loaded = np.load(file, allow_pickle=False)
            if not isinstance(loaded, np.lib.npyio.NpzFile):
                return to_nhwc(loaded, name=str(path)), None
            with loaded:
                return _from_npz(loaded, name=str(path))
    except OSError as error:
        raise BadData(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, EOFError, SyntaxError, KeyError, TypeError, RuntimeError, MemoryError, struct.error,
            tokenize.TokenError, zipfile.BadZipFile, zlib.error) as error:  # fmt: skip
        reason = "it holds pickled objects" if "pickle" in str(error).lower() else "it is damaged"
        raise BadData(f"{path} is no array file: {reason}") from None


def _from_npz(arrays: Any, *, name: str) -> tuple[NDArray[np.uint8], NDArray[np.int64] | None]:
    keys = list(arrays.keys())
    others = [key for key in keys if key != "labels"]
    if "images" not in keys and len(others) != 1:
        raise BadData(f"{name} has the arrays {', '.join(keys) or '(none)'}: call the one of images 'images'")
    images = to_nhwc(arrays["images" if "images" in keys else others[0]], name=name)
    if "labels" not in keys:
        return images, None
    labels = arrays["labels"]
    if labels.shape != (len(images),) or labels.dtype.kind not in "iub":
        raise BadData(f"labels of {name} are {labels.dtype} {labels.shape}: one integer for each image")
    return images, labels.astype(np.int64)


def to_nhwc(array: NDArray[Any], *, name: str) -> NDArray[np.uint8]:
    """Return images as uint8 of shape (N, H, W, C).

    Args:
        array: (N, H, W) or (N, H, W, C) with C of 1 or 3; uint8, or floating-point within 0 to 1.
        name: What messages call it.

    Raises:
        BadData: Another shape or type, or values out of range.
    """
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or array.shape[3] not in (1, 3):
        raise BadData(
            f"{name} has the shape {array.shape}: images are (N, H, W) or (N, H, W, C) with C 1 or 3"
        )
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype.kind != "f":
        raise BadData(f"{name} is of type {array.dtype}: images are uint8, or floating-point within 0 to 1")
    if array.size and not np.isfinite(array).all():
        raise BadData(
            f"{name} holds NaN or infinite values: images are uint8, or floating-point within 0 to 1"
        )
    low, high = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
    if low < 0 or high > 1:
        raise BadData(
            f"{name} holds values from {low:g} to {high:g}: floating-point images are within 0 to 1"
        )
    scaled: NDArray[np.uint8] = np.rint(array * 255).astype(np.uint8)
    return scaled
