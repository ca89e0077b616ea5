import gzip
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from convvae_service.images.idx import BadArray, is_idx, open_idx
from support.idx_file import idx_bytes

ARRAY = np.arange(24, dtype=np.uint8).reshape(4, 3, 2)
SOUND = idx_bytes(ARRAY)


def packed(data: bytes) -> bytes:
    """Return gzip data without a time, which would give the tests other names in each process."""
    return gzip.compress(data, mtime=0)


def parse(data: bytes) -> NDArray[Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.idx")
        path.write_bytes(data)
        return np.array(open_idx(path))


@pytest.mark.parametrize("pack", [bytes, packed])
@pytest.mark.parametrize(("dtype", "code"), [(np.uint8, 8), (np.int16, 11), (np.float32, 13)])
def test_reads_what_the_format_says(pack: Callable[[bytes], bytes], dtype: Any, code: int) -> None:
    """Plain and gzip-compressed files give the array that was written."""
    array = ARRAY.astype(dtype)
    np.testing.assert_array_equal(parse(pack(idx_bytes(array, code))), array)


@settings(deadline=None)
@given(st.binary(max_size=64))
def test_any_bytes_give_an_array_or_one_error(data: bytes) -> None:
    """The parser raises only `BadArray`."""
    with suppress(BadArray):
        parse(data)


@settings(deadline=None)
@given(st.data())
def test_any_damage_gives_an_array_or_one_error(data: st.DataObject) -> None:
    """The parser raises only `BadArray` if a valid file is cut or changed."""
    whole = data.draw(st.sampled_from([SOUND, packed(SOUND)]))
    damaged = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for _ in range(data.draw(st.integers(0, 3))):
        if damaged:
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with suppress(BadArray):
        parse(bytes(damaged))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "x.idx is not an idx file: it does not start with two zero bytes and a type"),
        (b"\0\0\x07\x01\0\0\0\0", "x.idx is not an idx file: type 0x07 with 1 axes is unknown"),
        (b"\0\0\x08\x03\0\0", "x.idx is truncated: its header needs 16 bytes, but it has 6"),
        (SOUND[:-1], "x.idx is truncated: 4x3x2 values need 24 bytes"),
        (SOUND + b"\0", "x.idx is too long: 4x3x2 values need 24 bytes"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "x.idx is truncated: 4294967295x4294967295x4294967295 values need"),
        (packed(SOUND[:-1]), "x.idx is truncated: 4x3x2 values need 24 bytes"),
        (packed(SOUND + b"\0"), "x.idx is too long: 4x3x2 values need 24 bytes"),
        (packed(SOUND)[:-9], "x.idx is truncated: its gzip data end early"),
        (packed(SOUND)[:10] + b"\xff" * 30, "x.idx is damaged: its gzip data do not decompress"),
        (packed(b"\0\0\x08\x03" + b"\xff" * 12), "it is too short to hold 4294967295x4294967295x"),
    ],
)
def test_damage_is_named(data: bytes, message: str) -> None:
    """The message says what is wrong. Impossible sizes are refused before memory is allocated."""
    with pytest.raises(BadArray) as caught:
        parse(data)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("t10k-images-idx3-ubyte", True),
        ("t10k-images-idx3-ubyte.gz", True),
        ("x.idx", True),
        ("x.gz", False),
        ("idx3.txt", False),
    ],
)
def test_name_tells(name: str, taken: bool) -> None:
    """An idx file is recognised by its name."""
    assert is_idx(Path(name)) is taken
