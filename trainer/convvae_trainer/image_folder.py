"""A folder of image files, at any depth, as one array."""

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from convvae_service.bundle import ImageShape, Resize
from convvae_service.pixels import InvalidImage, decode_file
from convvae_trainer.errors import BadData

__all__ = ["SUFFIXES", "read_folder"]

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
COLOUR_PROBES = 64


def read_folder(
    folder: Path, *, image_size: tuple[int, int] | None, resize: Resize
) -> tuple[NDArray[np.uint8], NDArray[np.int64] | None]:
    """Read all images under `folder`, sorted by path.

    Grey or colour follows the files: all are read as grey if the first 64 are.

    Args:
        folder: Holds JPEG, PNG or WebP files, at any depth. Names that start with a dot are left out.
        image_size: (height, width) to resize to. None: the files are of one size.
        resize: How to get to `image_size`.

    Returns:
        (images, labels): uint8 of shape (N, H, W, C); labels number the folders of the first level, in
        sorted order, or are None where a file lies in no such folder.

    Raises:
        BadData: No images, two sizes, or a file that cannot be read; the message names it.
    """
    paths = _find(folder)
    if not paths:
        raise BadData(f"no images in {folder}: JPEG, PNG or WebP files, at any depth, are taken")
    channels = 1 if all(_is_grey(path) for path in paths[:COLOUR_PROBES]) else 3
    height, width = image_size or _size(paths[0])
    shape = ImageShape(height=height, width=width, channels=channels)
    images = np.empty((len(paths), *shape.as_tuple), dtype=np.uint8)
    for row, path in enumerate(paths):
        if image_size is None and (size := _size(path)) != (height, width):
            raise BadData(
                f"images are of mixed sizes: {paths[0]} is {height}x{width}, {path} is {size[0]}x{size[1]};"
                " give --image-size"
            )
        images[row] = _decode(path, shape=shape, resize=resize)
    return images, _labels(folder, paths)


def _find(folder: Path) -> list[Path]:
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in files if not name.startswith(".")]
    return sorted(path for path in found if path.suffix.lower() in SUFFIXES)


def _size(path: Path) -> tuple[int, int]:
    """Return (height, width) as the picture is seen, EXIF orientation applied."""
    with _open(path) as image:
        # 5 to 8 are the orientations that lie on their side.
        turned = image.getexif().get(0x0112) in (5, 6, 7, 8)
        return (image.width, image.height) if turned else (image.height, image.width)


def _is_grey(path: Path) -> bool:
    with _open(path) as image:
        return image.mode in ("1", "L", "LA", "I", "I;16", "I;16B")


def _open(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except UnidentifiedImageError:
        raise BadData(f"{path} is no image: not a JPEG, PNG or WebP file") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadData(
            f"{path} cannot be read: {getattr(error, 'strerror', None) or 'damaged image'}"
        ) from None


def _decode(path: Path, *, shape: ImageShape, resize: Resize) -> NDArray[np.uint8]:
    try:
        return decode_file(path.read_bytes(), shape=shape, resize=resize)
    except InvalidImage as error:
        raise BadData(f"{path} cannot be used: {error}") from None
    except OSError as error:
        raise BadData(f"{path} cannot be read: {error.strerror}") from None


def _labels(folder: Path, paths: list[Path]) -> NDArray[np.int64] | None:
    parts = [path.relative_to(folder).parts for path in paths]
    if any(len(part) == 1 for part in parts):
        return None
    classes = {name: number for number, name in enumerate(sorted({part[0] for part in parts}))}
    return np.array([classes[part[0]] for part in parts], dtype=np.int64)
