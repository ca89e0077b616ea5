"""A folder of image files, at any depth, as one array."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convvae_service.bundle import Resize
from convvae_service.images import InvalidImage, decode_file, file_shape, image_files
from convvae_trainer.data.rows import ImageStack
from convvae_trainer.errors import BadData

__all__ = ["read_folder"]


def read_folder(
    folder: Path, *, image_size: tuple[int, int] | None, resize: Resize, channels: int | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.int64] | None, str]:
    """Read all images under `folder`, sorted by path.

    Args:
        folder: Holds JPEG, PNG or WebP files, at any depth. Names that start with a dot are left out.
        image_size: (height, width) to resize to. None: the files are of one size.
        resize: How to get to `image_size`.
        channels: 1 to read all files as grey, 3 as RGB. None: RGB if one file or more is in colour.

    Returns:
        (images, labels, note): uint8 of shape (N, H, W, C); labels number the folders of the first level, in
        sorted order, or are None where a file lies in no such folder; the note says how many files are read
        in other colours than they have, or is "".

    Raises:
        BadData: No images, two sizes, or a file that cannot be read; the message names it.
    """
    try:
        names = image_files(folder)
    except OSError as error:
        raise BadData(f"{error.filename} cannot be listed: {error.strerror}") from None
    if not names:
        raise BadData(f"no images in {folder}: JPEG, PNG or WebP files, at any depth, are taken")
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
    """Say which file it is that is no image."""
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
