"""A folder of image files, at any depth, as one array."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convvae_service.bundle import ImageShape, Resize
from convvae_service.pixels import InvalidImage, decode_file, image_files, picture_shape
from convvae_trainer.errors import BadData
from convvae_trainer.image_arrays import check_size

__all__ = ["read_folder"]

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
    try:
        names = image_files(folder)
    except OSError as error:
        raise BadData(f"{error.filename} cannot be listed: {error.strerror}") from None
    if not names:
        raise BadData(f"no images in {folder}: JPEG, PNG or WebP files, at any depth, are taken")
    paths = [folder / name for name in names]
    first = [_shape(path) for path in paths[:COLOUR_PROBES]]
    channels = 1 if all(shape[2] == 1 for shape in first) else 3
    height, width = image_size or first[0][:2]
    if image_size is None:
        # Before the memory is taken: a photograph's size is no size to train at.
        check_size(height, width, name=str(paths[0]))
    shape = ImageShape(height=height, width=width, channels=channels)
    images = np.empty((len(paths), *shape.as_tuple), dtype=np.uint8)
    for row, path in enumerate(paths):
        data = _read(path)
        with _named(path):
            if image_size is None and (size := picture_shape(data)[:2]) != (height, width):
                raise BadData(
                    f"images are of mixed sizes: {paths[0]} is {height}x{width}, {path} is"
                    f" {size[0]}x{size[1]}; give --image-size"
                )
            images[row] = decode_file(data, shape=shape, resize=resize)
    return images, _labels(names)


def _shape(path: Path) -> tuple[int, int, int]:
    data = _read(path)
    with _named(path):
        return picture_shape(data)


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
