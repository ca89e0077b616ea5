"""Images and arrays that the command line reads, without a server."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convvae.cli.sources import read_array, read_images
from convvae.errors import InvalidInput

IMAGES = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3, 1)


def test_folder_gives_its_images_sorted(tmp_path: Path) -> None:
    """A folder is searched at any depth. Files without an image suffix are skipped."""
    for name in ("b.PNG", "a/z.jpeg", "a/b.webp", "a.jpg", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    source = read_images([tmp_path])
    assert source.names == [str(tmp_path / name) for name in ("a/b.webp", "a/z.jpeg", "a.jpg", "b.PNG")]
    assert read_images([tmp_path / "notes.txt"]).names == [str(tmp_path / "notes.txt")]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["none.png"], "none.png does not exist"),
        (["none.npy"], "none.npy does not exist"),
        (["empty"], "no images"),
        (["x.npy", "x.npy"], "either one .npy or .npz file, or image files"),
        (["two.npz"], r"has the arrays \['a', 'b'\]; one must be named images"),
        (["bad.npy"], "not a readable array"),
        (["bad.npz"], "not a readable array"),
        (["pickled.npy"], "not a readable array"),
    ],
)
def test_sources_that_cannot_be_read_are_refused(tmp_path: Path, names: list[str], message: str) -> None:
    """A missing, ambiguous or unreadable file is refused by its name. Nothing is unpickled."""
    (tmp_path / "empty").mkdir()
    np.save(tmp_path / "x.npy", IMAGES)
    np.savez(tmp_path / "two.npz", a=IMAGES, b=IMAGES)
    np.save(tmp_path / "pickled.npy", np.array([{"a": 1}], dtype=object))
    for name in ("bad.npy", "bad.npz"):
        (tmp_path / name).write_bytes(b"\x93NUMPY nonsense")
    with pytest.raises(InvalidInput, match=message):
        read_images([tmp_path / name for name in names])


def test_arrays_are_found_by_name(tmp_path: Path) -> None:
    """An .npz file gives the named array, or its only one."""
    np.savez(tmp_path / "named.npz", images=IMAGES, labels=np.arange(5))
    np.savez(tmp_path / "only.npz", IMAGES)
    for name in ("named.npz", "only.npz"):
        assert np.array_equal(np.asarray(read_images([tmp_path / name]).images), IMAGES)


@given(
    data=st.binary(max_size=300),
    start=st.sampled_from([b"", b"\x93NUMPY\x01\x00", b"PK\x03\x04", b"PK\x05\x06"]),
)
def test_any_bytes_are_an_array_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, start: bytes
) -> None:
    """Any file is read or raises InvalidInput."""
    path = tmp_path_factory.getbasetemp() / "fuzz.npy"
    path.write_bytes(start + data)
    with contextlib.suppress(InvalidInput):
        read_array(path, keys=("images",))
