import io
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from convvae_service.images import BadArray
from convvae_service.images.npy import open_npy, open_npz

ARRAY = np.arange(48, dtype=np.uint8).reshape(2, 4, 6)


def saved(save: Callable[..., None], *arrays: Any, **named: Any) -> bytes:
    file = io.BytesIO()
    save(file, *arrays, **named)
    return file.getvalue()


def parse(data: bytes, suffix: str) -> NDArray[Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"x{suffix}")
        path.write_bytes(data)
        return np.array(open_npy(path) if suffix == ".npy" else open_npz(path, "images"))


SOUND = {
    ".npy": saved(np.save, ARRAY),
    ".npz": saved(np.savez, images=ARRAY),
    ".npz deflated": saved(np.savez_compressed, images=ARRAY),
}


@pytest.mark.parametrize("array", [ARRAY, ARRAY.astype(">f4"), np.asfortranarray(ARRAY), ARRAY[:0]])
@pytest.mark.parametrize("save", [np.save, np.savez, np.savez_compressed])
def test_reads_what_numpy_wrote(array: NDArray[Any], save: Callable[..., None]) -> None:
    """Any order of axes and bytes, compressed or not."""
    read = parse(saved(save, array), ".npy" if save is np.save else ".npz")
    np.testing.assert_array_equal(read, array)
    assert read.dtype == array.dtype


def test_plain_files_are_mapped_into_memory(tmp_path: Path) -> None:
    """An uncompressed file may be larger than memory."""
    np.save(tmp_path / "x.npy", ARRAY)
    np.savez(tmp_path / "x.npz", labels=[1, 2], images=ARRAY)
    assert isinstance(open_npy(tmp_path / "x.npy"), np.memmap)
    array = open_npz(tmp_path / "x.npz", "images")
    assert isinstance(array, np.memmap)
    np.testing.assert_array_equal(array, ARRAY)


@settings(deadline=None)
@given(st.sampled_from([".npy", ".npz"]), st.binary(max_size=200))
def test_any_bytes_give_an_array_or_one_error(suffix: str, data: bytes) -> None:
    """The parser raises only `BadArray`."""
    magic = b"\x93NUMPY\x01\x00" if suffix == ".npy" else b""
    for whole in (data, magic + data):
        with suppress(BadArray):
            parse(whole, suffix)


@settings(deadline=None)
@given(st.sampled_from(sorted(SOUND)), st.data())
def test_any_damage_gives_an_array_or_one_error(kind: str, data: st.DataObject) -> None:
    """The parser raises only `BadArray` if a valid file is cut or changed."""
    whole = SOUND[kind]
    damaged = bytearray(whole[: data.draw(st.one_of(st.just(len(whole)), st.integers(0, len(whole))))])
    for _ in range(data.draw(st.integers(0, 3))):
        if damaged:
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with suppress(BadArray):
        parse(bytes(damaged), kind.split()[0])


def zipped(name: str, data: bytes, **settings: Any) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", **settings) as archive:
        archive.writestr(name, data)
    return file.getvalue()


def with_flipped_pixel(data: bytes) -> bytes:
    position = data.index(ARRAY.tobytes()) + 5
    return data[:position] + b"\xff" + data[position + 1 :]


@pytest.mark.parametrize(
    ("data", "suffix", "message"),
    [
        (b"text", ".npy", "x.npy is not an .npy file, or is damaged"),
        (b"text", ".npz", "x.npz is not an .npz file, or is damaged"),
        (SOUND[".npy"][:-1], ".npy", "x.npy is truncated: 2x4x6 values need 48 bytes"),
        (SOUND[".npy"] + b"\0", ".npy", "x.npy is too long: 2x4x6 values need 48 bytes"),
        (SOUND[".npz"][:-1], ".npz", "x.npz is not an .npz file, or is damaged"),
        (with_flipped_pixel(SOUND[".npz"]), ".npz", "x.npz is not an .npz file, or is damaged"),
        (saved(np.save, np.array([{}], object)), ".npy", "x.npy holds Python objects, which are"),
        (saved(np.savez, np.array([{}], object)), ".npz", "x.npz holds Python objects, which are never"),
        (saved(np.savez, a=ARRAY, b=ARRAY), ".npz", "x.npz has the arrays a, b: name the array of images"),
        (zipped("images.npy", SOUND[".npy"][:-1]), ".npz", "x.npz is truncated: 2x4x6 values need 48 bytes"),
        (zipped("images.npy", SOUND[".npy"], compression=zipfile.ZIP_LZMA), ".npz", "or encrypted in a way"),
    ],
)  # fmt: skip
def test_damage_is_named(data: bytes, suffix: str, message: str) -> None:
    """The message says what is wrong, and a changed byte of an .npz file is detected."""
    with pytest.raises(BadArray) as caught:
        parse(data, suffix)
    assert message in str(caught.value)
