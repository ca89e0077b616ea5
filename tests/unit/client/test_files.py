"""The inputs and outputs of the command line, without a server."""

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from convvae.cli.outputs import Form, Output
from convvae.cli.pictures import MAX_GRID_IMAGES, encode_png, grid
from convvae.cli.sources import read_array, read_images
from convvae.errors import InvalidInput

ALL: tuple[Form, ...] = ("npy", "npz", "png", "folder")
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


@pytest.mark.parametrize(
    ("name", "message"),
    [("x.gif", "give .npy, .npz, .png, a folder"), ("there.npy", "exists; pass --force"),
     ("full", "exists and is not empty"), ("none/x.png", "none does not exist")],
)  # fmt: skip
def test_outputs_that_cannot_be_written_are_refused(tmp_path: Path, name: str, message: str) -> None:
    """A wrong name or an existing file is refused before any work."""
    (tmp_path / "there.npy").write_bytes(b"x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_bytes(b"x")
    with pytest.raises(InvalidInput, match=message):
        Output.at(tmp_path / name, forms=ALL, force=False)


@pytest.mark.parametrize("force", [False, True])
def test_outputs_are_written_whole(tmp_path: Path, force: bool) -> None:
    """Every form is written without leftovers, and --force replaces existing files."""
    if force:
        (tmp_path / "x.npy").write_bytes(b"old")
        (tmp_path / "x").mkdir()
        (tmp_path / "x" / "other.txt").write_bytes(b"stays")
    arrays = {"images": IMAGES, "seed": np.uint64(7)}
    for name in ("x.npy", "x.npz", "x.png", "x"):
        Output.at(tmp_path / name, forms=ALL, force=force).write_images(arrays)
    assert np.array_equal(np.load(tmp_path / "x.npy"), IMAGES)
    with np.load(tmp_path / "x.npz") as stored:
        assert set(stored.files) == {"images", "seed"}
    names = {path.name for path in (tmp_path / "x").iterdir()} - {"other.txt"}
    assert names == {f"{row:06}.png" for row in range(5)}
    with Image.open(tmp_path / "x" / "000003.png") as image:
        assert np.array_equal(np.asarray(image), IMAGES[3, ..., 0])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x", "x.npy", "x.npz", "x.png"]


def test_failed_output_leaves_nothing(tmp_path: Path) -> None:
    """A write that fails leaves no new and no temporary file, and keeps the old file."""
    (tmp_path / "x.png").write_bytes(b"old")

    def broken() -> Any:
        raise RuntimeError("half-way")

    for name in ("x.png", "y.png"):
        with pytest.raises(RuntimeError):
            Output.at(tmp_path / name, forms=ALL, force=True).write_images({"images": IMAGES}, above=broken)
    with pytest.raises(IndexError):
        Output.at(tmp_path / "folder", forms=ALL, force=False).write_images({"images": [np.zeros(())]})
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]
    assert (tmp_path / "x.png").read_bytes() == b"old"


def test_grid_shows_every_image_once() -> None:
    """Images are arranged in rows on white, and the second band is below the first."""
    plain = np.stack([np.full((64, 64, 1), value, np.uint8) for value in (10, 20, 30)])
    picture = grid(plain)
    assert picture.shape == (2 * 66 + 2, 2 * 66 + 2, 1)
    assert [picture[30, 30, 0], picture[30, 100, 0], picture[100, 30, 0], picture[100, 100, 0]] == [
        10,
        20,
        30,
        255,
    ]
    pairs = grid(plain, plain + 1)
    assert pairs[30, :, 0].tolist().count(10) == 64
    assert pairs[100, 30, 0] == 11


def test_small_images_are_enlarged_and_too_many_refused() -> None:
    """A grid of 8x8 images can be seen; a grid of a million images is refused."""
    assert grid(np.zeros((1, 8, 8, 3), np.uint8)).shape == (68, 68, 3)
    with pytest.raises(InvalidInput, match="a grid shows up to 4096 images"):
        grid(np.zeros((MAX_GRID_IMAGES + 1, 8, 8, 1), np.uint8))


def test_png_keeps_colours() -> None:
    """Three channels are written as RGB."""
    image = np.arange(4 * 3 * 3, dtype=np.uint8).reshape(4, 3, 3)
    with Image.open(io.BytesIO(encode_png(image))) as stored:
        assert np.array_equal(np.asarray(stored), image)
