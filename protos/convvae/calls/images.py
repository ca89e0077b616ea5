"""The images of a call: an array of pixels, or image files."""

import math
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convvae.calls.inputs import refuse
from convvae.errors import InvalidInput, Violation
from convvae.results import ModelInfo
from convvae.v1 import vae_pb2

__all__ = ["FileImages", "Images", "ImagesMessage", "PixelImages", "check_images", "join_images"]

ImagesMessage = vae_pb2.EncodeRequest | vae_pb2.ReconstructRequest | vae_pb2.ScoreRequest

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_FIELD_OVERHEAD_BYTES = 12  # At least the tag and the length of one entry of `files`.


class PixelImages:
    """Images as uint8 pixels, (N, H, W, C), or (N, H, W) for a grey model."""

    field = "images"

    def __init__(self, array: NDArray[np.uint8]) -> None:
        self.array = array
        self.rows = len(array)

    def check(self, info: ModelInfo) -> None:
        """Raise `InvalidInput` unless the images have the model's size."""
        height, width, channels = info.image_shape
        shape = self.array.shape
        if shape[1:] == info.image_shape or (channels == 1 and shape[1:] == (height, width)):
            return
        if shape == info.image_shape:
            raise refuse("images", f"shape {shape} is one image; a batch of one is images[np.newaxis]")
        raise refuse(
            "images", f"shape is {shape}; model {info.model!r} takes (N, {height}, {width}, {channels})"
        )

    @property
    def num_bytes(self) -> int:
        """Bytes of all rows."""
        return self.array.nbytes

    def row_bytes(self, info: ModelInfo) -> int:
        """Return the bytes that one row adds to a request."""
        return math.prod(info.image_shape)

    def fill(self, request: ImagesMessage, rows: range, info: ModelInfo) -> None:
        """Add these rows to `request`."""
        height, width, channels = info.image_shape
        request.pixels.data = self.array[rows.start : rows.stop].tobytes()
        request.pixels.count = len(rows)
        request.pixels.height = height
        request.pixels.width = width
        request.pixels.channels = channels


class FileImages:
    """Images as JPEG, PNG or WebP files: bytes, or paths that are read when their request is built."""

    field = "files"

    def __init__(self, files: Sequence[bytes | Path]) -> None:
        self.files = files
        self.rows = len(files)

    def check(self, _info: ModelInfo) -> None:
        """Do nothing: the server resizes files to the model's size."""

    @property
    def num_bytes(self) -> int:
        """Bytes that all rows add to a request. Raises `InvalidInput` as `row_bytes` does."""
        return sum(self.row_bytes())

    def row_bytes(self, _info: ModelInfo | None = None) -> Sequence[int]:
        """Return the bytes that each row adds to a request.

        Raises:
            InvalidInput: A path cannot be read.
        """
        sizes: list[int] = []
        bad: list[Violation] = []
        for row, file in enumerate(self.files):
            size, fault = (len(file), None) if isinstance(file, bytes) else _measure(file)
            if fault is None and size == 0:
                fault = "the file is empty"
            if fault is not None:
                name = "" if isinstance(file, bytes) else f"{file}: "
                bad.append(Violation(f"files[{row}]", f"{name}{fault}"))
            sizes.append(size + _FIELD_OVERHEAD_BYTES)
        if bad:
            raise InvalidInput(str(bad[0]), violations=bad)
        return sizes

    def in_memory(self) -> "FileImages":
        """Return the same images with every file read.

        Raises:
            InvalidInput: A path cannot be read.
        """
        return FileImages([self._read(row) for row in range(self.rows)])

    def fill(self, request: ImagesMessage, rows: range, _info: ModelInfo) -> None:
        """Add these rows to `request`."""
        request.files.extend(self._read(row) for row in rows)

    def _read(self, row: int) -> bytes:
        file = self.files[row]
        if isinstance(file, bytes):
            return file
        try:
            data = file.read_bytes()
        except OSError as error:
            raise refuse(f"files[{row}]", f"{file}: {error.strerror}") from None
        if data.startswith(_LFS_POINTER):
            raise refuse(
                f"files[{row}]",
                f"{file}: the file is a pointer of Git LFS, not the image: run `git lfs pull`",
            )
        return data


def _measure(path: Path) -> tuple[int, str | None]:
    """Return the size of a file, and the reason if it cannot be read."""
    try:
        status = path.stat()
    except OSError as error:
        link = path.is_symlink() and isinstance(error, FileNotFoundError)
        return 0, "it is a link to a file that does not exist" if link else error.strerror
    # To open a FIFO would wait for its writer.
    return status.st_size, None if stat.S_ISREG(status.st_mode) else "it is not a regular file"


Images = PixelImages | FileImages


def join_images(parts: Sequence[Images]) -> Images:
    """Return the images of all parts, in their order: pixels of one size, or files."""
    arrays = [part.array for part in parts if isinstance(part, PixelImages)]
    if arrays:
        return PixelImages(np.concatenate(arrays))
    return FileImages([file for part in parts if isinstance(part, FileImages) for file in part.files])


def check_images(images: Any) -> Images:
    """Check the caller's images, which are a uint8 array or a list of file bytes and paths.

    Raises:
        InvalidInput: The images are neither, empty, of another dtype, or without a batch axis.
    """
    if isinstance(images, np.ndarray):
        return PixelImages(_check_array(images))
    if isinstance(images, bytes | bytearray | memoryview | Path | str):
        raise refuse("images", f"got one {type(images).__name__}; give a list of file bytes or pathlib.Path")
    try:
        items = list(images)
    except TypeError:
        raise refuse(
            "images", f"got {type(images).__name__}; give a uint8 array or a list of files"
        ) from None
    if not items:
        raise refuse("images", "the list is empty")
    for row, item in enumerate(items):
        if isinstance(item, np.ndarray):
            raise refuse("images", "got a list of arrays; give one array: np.stack(images)")
        if not isinstance(item, bytes | bytearray | memoryview | Path):
            raise refuse(
                f"files[{row}]", f"is {type(item).__name__}; give the file's bytes or a pathlib.Path"
            )
    return FileImages([item if isinstance(item, bytes | Path) else bytes(item) for item in items])


def _check_array(array: NDArray[Any]) -> NDArray[np.uint8]:
    if array.dtype.kind in "fb":
        raise refuse(
            "images",
            f"the dtype is {array.dtype}; the model takes uint8, 0 to 255. "
            "For values in 0..1: (images * 255).round().astype(np.uint8)",
        )
    if array.dtype != np.uint8:
        raise refuse("images", f"the dtype is {array.dtype}; for values in 0..255: images.astype(np.uint8)")
    if array.ndim == 2:
        raise refuse("images", f"shape {array.shape} is one image; a batch of one is images[np.newaxis]")
    if array.ndim not in (3, 4):
        raise refuse("images", f"shape is {array.shape}; it must be (N, H, W, C)")
    if 0 in array.shape:
        raise refuse("images", f"shape {array.shape} is empty")
    return array
