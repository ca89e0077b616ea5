"""The images of a call: an array of pixels, or image files."""

import math
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convvae.errors import InvalidInput, Violation
from convvae.inputs.arguments import refuse
from convvae.results import ModelInfo
from convvae.v1 import vae_pb2

__all__ = ["FileImages", "Images", "ImagesMessage", "PixelImages", "join_images"]

ImagesMessage = vae_pb2.EncodeRequest | vae_pb2.ReconstructRequest | vae_pb2.ScoreRequest

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_INDEX = re.compile(r"\bfiles\[(\d{1,10})\]: ")
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

    def named(self, error: InvalidInput) -> InvalidInput:
        """Return the error: rows of an array have no names."""
        return error

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
    """Images as JPEG, PNG or WebP files: bytes, or paths that are read when their request is built.

    Args:
        files: The files.
        names: The path of each file, or "" for bytes. None takes the paths in `files`.
        shapes: By its row, the shape of each file that was an array: it must be the model's.
    """

    field = "files"

    def __init__(
        self,
        files: Sequence[bytes | Path],
        *,
        names: Sequence[str] | None = None,
        shapes: Mapping[int, tuple[int, ...]] | None = None,
    ) -> None:
        self.files = files
        self.rows = len(files)
        self.names = (
            ["" if isinstance(file, bytes) else str(file) for file in files] if names is None else names
        )
        self.shapes = shapes or {}

    def check(self, info: ModelInfo) -> None:
        """Raise `InvalidInput` unless arrays have the model's size. The server resizes files to it."""
        for row, shape in self.shapes.items():
            if shape not in (info.image_shape, info.image_shape[: 2 if info.channels == 1 else 3]):
                text = f"is an array of shape {shape}; model {info.model!r} takes {info.image_shape}"
                raise refuse(f"images[{row}]", text)

    def named(self, error: InvalidInput) -> InvalidInput:
        """Return the error with the path of each file that it names by its index."""

        def with_name(found: re.Match[str]) -> str:
            row = int(found[1])
            name = self.names[row] if row < self.rows else ""
            is_there = not name or found.string.startswith(name, found.end())
            return found[0] if is_there else f"{found[0]}{name}: "

        violations = []
        for violation in error.violations:
            field, _, text = _INDEX.sub(with_name, str(violation)).partition(": ")
            violations.append(Violation(field, text) if violation.field else violation)
        return InvalidInput(
            _INDEX.sub(with_name, error.message),
            violations=violations,
            code=error.code,
            request_id=error.request_id,
            retry_delay_s=error.retry_delay_s,
        )

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
                name = self.names[row]
                bad.append(Violation(f"files[{row}]", f"{name}: {fault}" if name else fault))
            sizes.append(size + _FIELD_OVERHEAD_BYTES)
        if bad:
            raise InvalidInput(str(bad[0]), violations=bad)
        return sizes

    def in_memory(self) -> "FileImages":
        """Return the same images with every file read.

        Raises:
            InvalidInput: A path cannot be read.
        """
        return FileImages([self.read(row) for row in range(self.rows)], names=self.names, shapes=self.shapes)

    def fill(self, request: ImagesMessage, rows: range, _info: ModelInfo) -> None:
        """Add these rows to `request`."""
        request.files.extend(self.read(row) for row in rows)

    def read(self, row: int) -> bytes:
        """Return the bytes of a file.

        Raises:
            InvalidInput: The path cannot be read.
        """
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
    files = [part for part in parts if isinstance(part, FileImages)]
    return FileImages(
        [file for part in files for file in part.files], names=[name for part in files for name in part.names]
    )
