"""Idx files, as MNIST is distributed."""

import struct
from typing import Any

from numpy.typing import NDArray


def idx_bytes(array: NDArray[Any], code: int = 0x08) -> bytes:
    """Return `array` as an idx file."""
    header = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()
