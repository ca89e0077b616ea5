"""The idx format of MNIST and similar data sets: a magic number, the sizes, then the values, big-endian."""

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

__all__ = ["MAX_EXPANSION", "BadArray", "is_idx", "open_idx"]

MAX_DIMENSIONS = 4
MAX_HEADER_BYTES = 4 + 4 * MAX_DIMENSIONS
# Deflate encodes at most 258 bytes in 2 bits, so no file expands by a larger factor.
MAX_EXPANSION = 1032
_GZIP = b"\x1f\x8b"
_CHUNK_BYTES = 1 << 20
_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


class BadArray(ValueError):
    """A file has no usable array of images. The message names the file and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class _IdxHeader:
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def is_idx(path: Path) -> bool:
    """Return whether `path` has the name of an idx file, such as `train-images-idx3-ubyte.gz`."""
    stem = path.name.lower().removesuffix(".gz")
    return stem.endswith(".idx") or any(f"idx{n}-" in stem for n in range(1, MAX_DIMENSIONS + 1))


def open_idx(path: Path) -> NDArray[Any]:
    """Return the array in an idx file. It is mapped into memory, or read if it is gzip-compressed.

    Memory is allocated only after the sizes in the header agree with the length of the file.

    Raises:
        BadArray: The file cannot be read, is not an idx file, or is damaged.
    """
    try:
        with path.open("rb") as file:
            if file.read(2) == _GZIP:
                file.seek(0)
                return _inflate(file, path.name, path.stat().st_size)
            file.seek(0)
            header = _parse_header(file.read(MAX_HEADER_BYTES), path.name)
        _check_size(header, path.stat().st_size - header.start, path.name)
        if not header.num_bytes:
            return np.empty(header.shape, header.dtype)
        return np.memmap(path, header.dtype, "r", header.start, header.shape)
    except OSError as error:
        raise BadArray(f"{path.name} cannot be read: {error.strerror or error}") from None


def _inflate(file: BinaryIO, name: str, compressed_bytes: int) -> NDArray[Any]:
    try:
        with gzip.GzipFile(fileobj=file) as plain:
            header = _parse_header(plain.read(MAX_HEADER_BYTES), name)
            if header.num_bytes > compressed_bytes * MAX_EXPANSION:
                raise BadArray(f"{name} is damaged: it is too short to hold {_sizes(header)} values")
            plain.seek(header.start)
            values = np.empty(header.num_bytes, np.uint8)
            view, filled = values.data, 0
            while filled < len(view) and (count := plain.readinto(view[filled : filled + _CHUNK_BYTES])):
                filled += count
            # gzip compares the checksum only on a read beyond the end.
            _check_size(header, filled + len(plain.read(1)), name)
    except (gzip.BadGzipFile, zlib.error):
        raise BadArray(f"{name} is damaged: its gzip data do not decompress") from None
    except EOFError:
        raise BadArray(f"{name} is truncated: its gzip data end early") from None
    except MemoryError:
        raise BadArray(f"{name} does not fit in memory: decompress it first") from None
    return values.view(header.dtype).reshape(header.shape)


def _parse_header(data: bytes, name: str) -> _IdxHeader:
    if len(data) < 4 or data[:2] != b"\0\0":
        raise BadArray(f"{name} is not an idx file: it does not start with two zero bytes and a type")
    code, num_axes = data[2], data[3]
    if code not in _DTYPES or not 1 <= num_axes <= MAX_DIMENSIONS:
        raise BadArray(f"{name} is not an idx file: type 0x{code:02x} with {num_axes} axes is unknown")
    start = 4 + 4 * num_axes
    if len(data) < start:
        raise BadArray(f"{name} is truncated: its header needs {start} bytes, but it has {len(data)}")
    shape = struct.unpack(f">{num_axes}I", data[4:start])
    return _IdxHeader(np.dtype(_DTYPES[code]), shape, start)


def _check_size(header: _IdxHeader, num_bytes: int, name: str) -> None:
    if num_bytes != header.num_bytes:
        state = "truncated" if num_bytes < header.num_bytes else "too long"
        raise BadArray(f"{name} is {state}: {_sizes(header)} values need {header.num_bytes} bytes")


def _sizes(header: _IdxHeader) -> str:
    return "x".join(map(str, header.shape))
