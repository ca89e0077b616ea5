"""The idx parser."""

import contextlib
import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convvae_trainer.errors import BadData
from convvae_trainer.idx import is_idx, parse_idx, read_idx

# Other jobs on the machine are no reason to fail.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def header(code: int, *shape: int) -> bytes:
    return bytes([0, 0, code, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)


def test_images_read_as_they_were_written(tmp_path: Path) -> None:
    """Plain and compressed files give the same array."""
    images = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    data = header(0x08, 2, 3, 4) + images.tobytes()
    (tmp_path / "a-idx3-ubyte").write_bytes(data)
    (tmp_path / "a-idx3-ubyte.gz").write_bytes(gzip.compress(data))
    for path in tmp_path.iterdir():
        np.testing.assert_array_equal(read_idx(path), images)


def test_wider_types_are_big_endian() -> None:
    """Values of more than one byte come out in native order."""
    array = parse_idx(header(0x0D, 2) + struct.pack(">2f", 1.5, -2))
    assert array.dtype == np.dtype("=f4")
    assert array.tolist() == [1.5, -2]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is no idx file"),
        (b"\x89PNG1234", "is no idx file"),
        (bytes([0, 0, 7, 1]), "is no idx file: type 0x07 with 1 axes"),
        (bytes([0, 0, 8, 9]), "is no idx file: type 0x08 with 9 axes"),
        (bytes([0, 0, 8, 3, 0, 0]), "is truncated: its header needs 16 bytes, there are 6"),
        (header(8, 2, 2) + b"abc", "is truncated: 2x2 values need 4 bytes, there are 3"),
        (header(8, 2, 2) + b"abcde", "is too long: 2x2 values need 4 bytes, there are 5"),
        (header(8, 2**32 - 1, 2**32 - 1, 2**32 - 1), "is truncated"),
    ],
)
def test_damage_is_named(data: bytes, message: str) -> None:
    """A damaged file is refused with what is wrong, and no memory is taken for what it claims."""
    with pytest.raises(BadData, match=r"^idx file ") as raised:
        parse_idx(data)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (gzip.compress(header(8, 4) + b"abcd")[:-9], "truncated: its gzip data end early"),
        (b"\x1f\x8b\x08garbage-garbage", "damaged: its gzip data do not decompress"),
        (gzip.compress(header(8, 4000) + bytes(4000)), "is larger than 1000 bytes"),
        (header(8, 4000) + bytes(4000), "is larger than 1000 bytes"),
    ],
)
def test_compressed_damage_is_named(tmp_path: Path, data: bytes, message: str) -> None:
    """Damage below the compression is refused too, and decompression stops at the limit."""
    path = tmp_path / "a-idx1-ubyte.gz"
    path.write_bytes(data)
    with pytest.raises(BadData) as raised:
        read_idx(path, max_bytes=1000)
    assert message in str(raised.value)
    assert str(path) in str(raised.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A path that is not there is named."""
    with pytest.raises(BadData, match="absent cannot be read: No such file"):
        read_idx(tmp_path / "absent")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("train-images-idx3-ubyte", True),
        ("train-images-idx3-ubyte.gz", True),
        ("a.idx", True),
        ("a.npy", False),
        ("idx.png", False),
    ],
)
def test_names_tell_the_kind(name: str, expected: bool) -> None:
    """The usual names of idx files are known."""
    assert is_idx(Path(name)) is expected


@unhurried
@given(
    st.one_of(
        st.binary(max_size=64),
        st.builds(
            lambda code, shape, body: header(code, *shape) + body,
            st.integers(0, 255),
            st.lists(st.integers(0, 3) | st.integers(0, 2**32 - 1), max_size=5),
            st.binary(max_size=64),
        ),
    )
)
def test_any_bytes_give_an_array_or_one_error(data: bytes) -> None:
    """Whatever the bytes, the outcome is an array of exactly those bytes or a `BadData`."""
    try:
        array = parse_idx(data)
    except BadData:
        return
    assert array.nbytes == len(data) - 4 - 4 * array.ndim


@unhurried
@given(st.binary(max_size=64), st.integers(0, 80), st.integers(0, 255))
def test_any_compressed_bytes_give_an_array_or_one_error(
    tmp_path_factory: pytest.TempPathFactory, body: bytes, place: int, value: int
) -> None:
    """One changed byte in a compressed file never escapes as another error."""
    data = bytearray(gzip.compress(header(8, len(body)) + body))
    data[place % len(data)] = value
    path = tmp_path_factory.getbasetemp() / "fuzzed-idx1-ubyte.gz"
    path.write_bytes(bytes(data))
    with contextlib.suppress(BadData):
        assert read_idx(path).ndim >= 1
