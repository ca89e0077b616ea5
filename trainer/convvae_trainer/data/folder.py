"""A folder of image files as one array."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convvae_service.bundle import Resize
from convvae_service.images import InvalidImage, decode_file, file_shape, image_files
from convvae_trainer.data.image_stack import ImageStack
from convvae_trainer.errors import BadData

__all__ = ["read_folder"]


def read_folder(
    folder: Path, *, image_size: tuple[int, int] | None, resize: Resize, channels: int | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.int64] | None, str]:
    """Read all images in `folder`, sorted by path.

    Args:
        folder: Folder of JPEG, PNG or WebP files, at any depth. Names that start with a dot are skipped.
        image_size: (height, width) of the result. None: all files must have one size.
        resize: How files are resized.
        channels: Channels of the result: 1 (grey) or 3 (RGB). None: 3 if any file is in colour.

    Returns:
        (images, labels, note): images are uint8 of shape (N, H, W, C). Labels number the folders of the first
        level in sorted order, or are None if a file is in no such folder. The note says how many files were
        read in other colours than they have, or is "".

    Raises:
        BadData: There are no images, they have different sizes, or a file cannot be read; the message names
            the file.
    """
    try:
        names = image_files(folder)
    except OSError as error:
        raise BadData(f"{error.filename} cannot be listed: {error.strerror}") from None
    if not names:
        raise BadData(f"no images in {folder}: it must hold JPEG, PNG or WebP files, at any depth")
    rows = ImageStack(len(names), image_size=image_size, channels=channels)
    for name in names:
        path = folder / name
        data = _read(path)
        with _named(path):
            shape = rows.next_shape(file_shape(data), name=str(path))
            rows.add(decode_file(data, shape=shape, resize=resize))
    return rows.images, _labels(names), rows.note


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadData(f"{path} cannot be read: {error.strerror}") from None


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name the file in the error if it is not an image."""
    try:
        yield
    except InvalidImage as error:
        raise BadData(f"{path} cannot be used: {error}") from None


def _labels(names: list[str]) -> NDArray[np.int64] | None:
    parts = [name.split("/") for name in names]
    if any(len(part) == 1 for part in parts):
        return None
    classes = {name: number for number, name in enumerate(sorted({part[0] for part in parts}))}
    return np.array([classes[part[0]] for part in parts], dtype=np.int64)
