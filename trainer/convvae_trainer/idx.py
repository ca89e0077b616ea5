"""The idx format of MNIST and its relatives: a magic number, the sizes, then the values, big-endian."""

import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convvae_trainer.errors import BadData

__all__ = ["is_idx", "parse_idx", "read_idx"]

MAX_BYTES = 1 << 34
MAX_DIMENSIONS = 4
_GZIP = b"\x1f\x8b"
_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def is_idx(path: Path) -> bool:
    """Tell by the name whether `path` is taken for an idx file, such as `train-images-idx3-ubyte.gz`."""
    stem = path.name.removesuffix(".gz")
    return stem.endswith(".idx") or any(f"idx{n}-" in stem for n in range(1, MAX_DIMENSIONS + 1))


def parse_idx(data: bytes, *, name: str = "idx file") -> NDArray[Any]:
    """Return the array that the bytes of an idx file hold.

    Args:
        data: The file, not compressed.
        name: What messages call it.

    Returns:
        An array of native byte order with 1 to 4 axes.

    Raises:
        BadData: The header is none, or the values are fewer or more than the sizes say.
    """
    if len(data) < 4 or data[:2] != b"\0\0":
        raise BadData(f"{name} is no idx file: it does not start with two zero bytes and a type")
    code, num_axes = data[2], data[3]
    if code not in _DTYPES or not 1 <= num_axes <= MAX_DIMENSIONS:
        raise BadData(f"{name} is no idx file: type 0x{code:02x} with {num_axes} axes is not known")
    start = 4 + 4 * num_axes
    if len(data) < start:
        raise BadData(f"{name} is truncated: its header needs {start} bytes, there are {len(data)}")
    shape = struct.unpack(f">{num_axes}I", data[4:start])
    dtype = np.dtype(_DTYPES[code])
    expected = math.prod(shape) * dtype.itemsize
    if len(data) - start != expected:
        state = "truncated" if len(data) - start < expected else "too long"
        sizes = "x".join(map(str, shape))
        raise BadData(
            f"{name} is {state}: {sizes} values need {expected} bytes, there are {len(data) - start}"
        )
    return np.frombuffer(data, dtype=dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


def read_idx(path: Path, *, max_bytes: int = MAX_BYTES) -> NDArray[Any]:
    """Read an idx file, gzip-compressed or not.

    Args:
        path: The file.
        max_bytes: Largest size accepted, after decompression.

    Raises:
        BadData: The file cannot be read, is damaged, or is larger than `max_bytes`.
    """
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise BadData(f"{path} cannot be read: {error.strerror}") from None
    if data.startswith(_GZIP):
        data = _decompress(data, name=str(path), max_bytes=max_bytes)
    if len(data) > max_bytes:
        raise BadData(f"{path} is larger than {max_bytes} bytes")
    return parse_idx(data, name=str(path))


def _decompress(data: bytes, *, name: str, max_bytes: int) -> bytes:
    """Inflate one gzip member, never beyond `max_bytes` + 1 bytes."""
    inflater = zlib.decompressobj(wbits=31)
    try:
        plain = inflater.decompress(data, max_bytes + 1)
    except zlib.error:
        raise BadData(f"{name} is damaged: its gzip data do not decompress") from None
    if len(plain) <= max_bytes and not inflater.eof:
        raise BadData(f"{name} is truncated: its gzip data end early")
    return plain
