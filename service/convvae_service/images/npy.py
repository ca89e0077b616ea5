"""Arrays in .npy and .npz files, mapped into memory unless they are compressed. Nothing is unpickled."""

import math
import struct
import tokenize
import warnings
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from convvae_service.images.idx import MAX_EXPANSION, BadArray

__all__ = ["open_npy", "open_npz"]

_CHUNK_BYTES = 1 << 20
_LOCAL_HEADER_BYTES = 30
_ENCRYPTED = 0x1
# The errors that numpy and zipfile raise on damaged files, found with mutated files.
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError, ValueError, SyntaxError, TypeError,
    EOFError, KeyError, IndexError, OverflowError, AttributeError, RecursionError, NotImplementedError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _NpyHeader:
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran_order: bool
    start: int

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def open_npy(path: Path) -> NDArray[Any]:
    """Return the array in an .npy file, mapped into memory.

    Raises:
        BadArray: The file cannot be read, is damaged, or holds Python objects.
    """
    try:
        with path.open("rb") as file:
            header = _read_header(file, path.name)
        _check_size(header, path.stat().st_size - header.start, path.name)
        return _map(path, header, 0)
    except BadArray:
        raise
    except OSError as error:
        raise BadArray(f"{path.name} cannot be read: {error.strerror or error}") from None
    except _DAMAGE:
        raise BadArray(f"{path.name} is not an .npy file, or is damaged") from None


def open_npz(path: Path, key: str) -> NDArray[Any] | None:
    """Return the array `key` of an .npz file, or None if it is absent.

    The key `images` also stands for the only array beside `labels`. The array is mapped into memory, or read
    if it is compressed. Its checksum is compared in both cases.

    Raises:
        BadArray: The file cannot be read, is damaged, holds Python objects, or has no clear array of images.
    """
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            member = _choose(archive, path.name, key)
            if member is None:
                return None
            if member.flag_bits & _ENCRYPTED or member.compress_type not in (
                zipfile.ZIP_STORED,
                zipfile.ZIP_DEFLATED,
            ):
                raise BadArray(f"{path.name} is compressed or encrypted in a way that numpy does not write")
            return _open_member(path, file, archive, member)
    except BadArray:
        raise
    except OSError as error:
        raise BadArray(f"{path.name} cannot be read: {error.strerror or error}") from None
    except MemoryError:
        raise BadArray(f"{path.name} does not fit in memory: save it with numpy.savez or as .npy") from None
    except _DAMAGE:
        raise BadArray(f"{path.name} is not an .npz file, or is damaged") from None


def _choose(archive: zipfile.ZipFile, name: str, key: str) -> zipfile.ZipInfo | None:
    members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    if key in members or key != "images":
        return members.get(key)
    others = [member for other, member in members.items() if other != "labels"]
    if len(others) != 1:
        raise BadArray(
            f"{name} has the arrays {', '.join(members) or '(none)'}: name the array of images 'images'"
        )
    return others[0]


def _open_member(
    path: Path, file: IO[bytes], archive: zipfile.ZipFile, member: zipfile.ZipInfo
) -> NDArray[Any]:
    stored = member.compress_type == zipfile.ZIP_STORED
    if member.file_size > member.compress_size * (1 if stored else MAX_EXPANSION):
        raise BadArray(f"{path.name} is damaged: its array is larger than its bytes can hold")
    with archive.open(member) as content:
        header = _read_header(content, path.name)
        _check_size(header, member.file_size - header.start, path.name)
        values = np.empty(0 if stored else header.num_bytes, np.uint8)
        filled = 0
        # zipfile compares the checksum at the end.
        while chunk := content.read(_CHUNK_BYTES):
            if not stored:
                values[filled : filled + len(chunk)] = np.frombuffer(chunk, np.uint8)
            filled += len(chunk)
    _check_size(header, filled, path.name)
    if not stored:
        array = values.view(header.dtype)
        return array.reshape(header.shape[::-1]).T if header.fortran_order else array.reshape(header.shape)
    file.seek(member.header_offset)
    local = file.read(_LOCAL_HEADER_BYTES)
    name_bytes, extra_bytes = struct.unpack("<HH", local[26:30])
    return _map(path, header, member.header_offset + _LOCAL_HEADER_BYTES + name_bytes + extra_bytes)


def _read_header(file: IO[bytes], name: str) -> _NpyHeader:
    version = npy_format.read_magic(file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # files of Python 2
        if version == (1, 0):
            shape, fortran_order, dtype = npy_format.read_array_header_1_0(file)
        else:
            shape, fortran_order, dtype = npy_format.read_array_header_2_0(file)
    if dtype.hasobject:
        raise BadArray(f"{name} holds Python objects, which are never loaded: save a uint8 array")
    if dtype.itemsize == 0 or any(size < 0 for size in shape):
        raise ValueError("impossible shape")
    return _NpyHeader(dtype, shape, fortran_order, file.tell())


def _check_size(header: _NpyHeader, num_bytes: int, name: str) -> None:
    if num_bytes != header.num_bytes:
        state = "truncated" if num_bytes < header.num_bytes else "too long"
        sizes = "x".join(map(str, header.shape))
        raise BadArray(f"{name} is {state}: {sizes} values need {header.num_bytes} bytes")


def _map(path: Path, header: _NpyHeader, offset: int) -> NDArray[Any]:
    order = "F" if header.fortran_order else "C"
    if not header.num_bytes:
        return np.empty(header.shape, header.dtype)
    return np.memmap(path, header.dtype, "r", offset + header.start, header.shape, order)  # type: ignore[call-overload,no-any-return]
