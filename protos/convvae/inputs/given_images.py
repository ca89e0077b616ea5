"""The images that a caller may give: arrays, files, folders, pictures of Pillow, and lists of these.

Dimensions: N = images, H, W, C = height, width and channels of an image.
"""

import io
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np
from numpy.typing import NDArray

from convvae.inputs.arguments import refuse
from convvae.inputs.folders import images_in
from convvae.inputs.images import FileImages, Images, PixelImages
from convvae.pictures import encode_png, pillow

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["ImageLike", "ImagesLike", "check_images"]

ImageLike: TypeAlias = Union[
    bytes, bytearray, memoryview, str, "os.PathLike[str]", NDArray[np.uint8], "Image"
]
ImagesLike: TypeAlias = ImageLike | Sequence[ImageLike]

_KINDS = "a path, the bytes of a file, a picture of Pillow or a uint8 array"
# The modes that a PNG file stores as they are. Others become RGB.
_PNG_MODES = ("1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA")


def check_images(images: Any) -> Images:
    """Check the caller's images.

    Args:
        images: An array, uint8 (N, H, W, C) or (N, H, W). Or one image or a list of images, each a path of a
            JPEG, PNG or WebP file, its bytes, a picture of Pillow, or a uint8 array (H, W, C) or (H, W). A
            path may be that of a folder: it stands for its image files at any depth, sorted.

    Raises:
        InvalidInput: The images are of another kind, dtype or shape, or there are none. Paths are read later.
    """
    if _is_array(images):
        return PixelImages(_check_array(np.asarray(images)))
    items = _items(images)
    if not items:
        raise refuse("images", "the list is empty")
    if all(map(_is_array, items)):
        return PixelImages(_stacked([_image_array(item, row) for row, item in enumerate(items)]))
    files: list[bytes | Path] = []
    shapes: dict[int, tuple[int, ...]] = {}
    for row, item in enumerate(items):
        if _is_array(item):
            array = _image_array(item, row)
            shapes[len(files)] = array.shape
            files.append(encode_png(array.reshape(*array.shape[:2], -1)))
        else:
            files += _files_of(item, row)
    return FileImages(files, shapes=shapes)


def _items(images: Any) -> list[Any]:
    if isinstance(images, bytes | bytearray | memoryview | str | os.PathLike) or _is_picture(images):
        return [images]
    if not isinstance(images, Iterable):
        raise refuse("images", f"got {type(images).__name__}; give {_KINDS}, or a list of these")
    return list(images)


def _is_picture(item: Any) -> bool:
    # Whoever has a picture has imported Pillow.
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(item, module.Image)


def _is_array(item: Any) -> bool:
    """Return whether an item is an array: numpy's, or one of torch and others, which numpy can read."""
    return hasattr(item, "__array__") and not _is_picture(item)


def _files_of(item: Any, row: int) -> Sequence[bytes | Path]:
    if isinstance(item, bytes):
        return [item]
    if isinstance(item, bytearray | memoryview):
        return [bytes(item)]
    if _is_picture(item):
        return [_png_of(item, row)]
    if isinstance(item, str | os.PathLike):
        path = Path(item)
        return images_in(path)[0] if path.is_dir() else [path]
    raise refuse(f"images[{row}]", f"is {type(item).__name__}; give {_KINDS}")


def _png_of(picture: "Image", row: int) -> bytes:
    """Return a picture, turned upright by its EXIF data, as a PNG file."""
    _, ops = pillow()
    if picture.mode == "F":
        raise refuse(
            f"images[{row}]", "is a picture of floating-point numbers: convert it with .convert('L')"
        )
    file = io.BytesIO()
    try:
        upright = ops.exif_transpose(picture)
        shown = upright if upright.mode in _PNG_MODES else upright.convert("RGB")
        shown.save(file, "PNG", compress_level=1)
    except (OSError, ValueError) as error:
        raise refuse(f"images[{row}]", f"is a picture that cannot be read: {error}") from None
    return file.getvalue()


def _stacked(arrays: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    first = arrays[0]
    for row, array in enumerate(arrays):
        if array.shape != first.shape:
            raise refuse(f"images[{row}]", f"has the shape {array.shape}, but images[0] has {first.shape}")
    return np.stack(arrays)


def _image_array(item: Any, row: int) -> NDArray[np.uint8]:
    """Return one image of a list, uint8 (H, W) or (H, W, C)."""
    array = np.asarray(item)
    if fault := _dtype_fault(array):
        raise refuse(f"images[{row}]", fault)
    if array.ndim not in (2, 3) or 0 in array.shape or (array.ndim == 3 and array.shape[2] not in (1, 3)):
        raise refuse(f"images[{row}]", f"has the shape {array.shape}; it must be (H, W) or (H, W, 1 or 3)")
    return array


def _check_array(array: NDArray[Any]) -> NDArray[np.uint8]:
    if fault := _dtype_fault(array):
        raise refuse("images", fault)
    if array.ndim == 2:
        raise refuse("images", f"shape {array.shape} is one image; a batch of one is images[np.newaxis]")
    if array.ndim not in (3, 4):
        raise refuse("images", f"shape is {array.shape}; it must be (N, H, W, C)")
    if 0 in array.shape:
        raise refuse("images", f"shape {array.shape} is empty")
    return array


def _dtype_fault(array: NDArray[Any]) -> str:
    """Return why an array cannot hold pixels, and how to convert it; "" for uint8."""
    if array.dtype.kind in "fb":
        return (
            f"the dtype is {array.dtype}; the model takes uint8, 0 to 255. "
            "For values in 0..1: (images * 255).round().astype(np.uint8)"
        )
    if array.dtype != np.uint8:
        return f"the dtype is {array.dtype}; for values in 0..255: images.astype(np.uint8)"
    return ""
