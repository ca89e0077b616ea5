"""Files that the command line writes, without a server."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convvae.cli.outputs import Form, Output
from convvae.errors import InvalidInput

ALL: tuple[Form, ...] = ("npy", "npz", "png", "folder")
IMAGES = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3, 1)


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
