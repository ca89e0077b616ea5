"""Folders with files that cannot be used: all named in one error, or skipped and counted."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convvae_service.bundle import ImageShape, Resize
from convvae_service.images import decode_file
from convvae_trainer.data.dataset import load_dataset
from convvae_trainer.data.folder import read_folder
from convvae_trainer.errors import BadData
from convvae_trainer.settings.assembly import config_from
from convvae_trainer.settings.config import Config
from support.odd_folder import LEFT_OUT, add_odd_entries


def good_files(folder: Path, count: int = 20) -> None:
    folder.mkdir(exist_ok=True)
    for number in range(count):
        Image.new("L", (16, 16), 10 * number).save(folder / f"{number:02}.png")


def bad_files(folder: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (200, 0, 0)).save(buffer, "JPEG")
    (folder / "03x.jpg").write_bytes(buffer.getvalue()[:-2])
    (folder / "05x.png").write_bytes(b"")
    (folder / "07x.jpg").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    Image.new("L", (16, 16)).save(folder / "09x.jpg", "GIF")


def test_all_bad_files_are_named_at_once(tmp_path: Path) -> None:
    """One start is enough to learn of all of them."""
    good_files(tmp_path)
    bad_files(tmp_path)
    with pytest.raises(BadData) as caught:
        load_dataset(Config(dataset=str(tmp_path)))
    assert str(caught.value) == (
        f"4 of 24 files cannot be used: {tmp_path}/03x.jpg (image file is cut short), {tmp_path}/05x.png (the"
        f" file is empty), {tmp_path}/07x.jpg (the file is a pointer of Git LFS, not the image: run `git lfs"
        f" pull`), {tmp_path}/09x.jpg (not a JPEG, PNG or WebP image): repair or remove the files, or give"
        " --on-error skip"
    )


def test_ten_bad_files_are_named(tmp_path: Path) -> None:
    """More are counted."""
    good_files(tmp_path, 3)
    for number in range(14):
        (tmp_path / f"x{number:02}.png").touch()
    with pytest.raises(BadData, match=r"14 of 17 files .*x09\.png \(the file is empty\), and 4 more: repair"):
        load_dataset(Config(dataset=str(tmp_path)))


def test_bad_files_are_skipped(tmp_path: Path) -> None:
    """The others are as if alone: a bad colour file does not make them RGB. The record has the number."""
    good_files(tmp_path / "good")
    good_files(tmp_path / "mixed")
    bad_files(tmp_path / "mixed")
    alone = load_dataset(Config(dataset=str(tmp_path / "good")))
    mixed = load_dataset(Config(dataset=str(tmp_path / "mixed"), on_error="skip"))
    assert mixed.fingerprint() == alone.fingerprint()
    assert mixed.split.endswith("; 4 of 24 files cannot be used and were skipped")
    assert [text.split(" cannot")[0] for text in mixed.skipped] == [
        f"{tmp_path}/mixed/{name}" for name in ("03x.jpg", "05x.png", "07x.jpg", "09x.jpg")
    ]
    for path in (tmp_path / "mixed").glob("??.png"):
        path.unlink()
    with pytest.raises(BadData, match="4 of 4 files cannot be used"):
        load_dataset(Config(dataset=str(tmp_path / "mixed"), on_error="skip"))


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    """Other kinds, links and FIFOs have their numbers, and none is waited for."""
    good_files(tmp_path)
    add_odd_entries(tmp_path)
    assert load_dataset(Config(dataset=str(tmp_path))).split.endswith(f"; {LEFT_OUT}")
    for path in tmp_path.glob("??.png"):
        path.unlink()
    with pytest.raises(BadData, match=r"no images in .*; left out: 3 not regular files"):
        load_dataset(Config(dataset=str(tmp_path)))
    with pytest.raises(BadData, match=r"fifo\.png is not a folder and not a regular file"):
        load_dataset(Config(dataset=str(tmp_path / "fifo.png")))


def test_names_with_control_characters_are_one_line(tmp_path: Path) -> None:
    """Neither an escape code nor a line break of a name reaches the terminal; names need not be UTF-8."""
    folder = tmp_path / os.fsdecode(b"a\xe9")
    good_files(folder, 10)
    assert len(load_dataset(Config(dataset=str(folder), validation_share=0.0)).train) == 9
    (folder / "x\n\x1b[31m.png").touch()
    with pytest.raises(BadData, match=r"a\\xe9/x\\n\\x1b\[31m\.png cannot be used: the file is empty"):
        load_dataset(Config(dataset=str(folder)))


def test_photographs_up_to_the_limit_are_read(tmp_path: Path) -> None:
    """A file above 32 megapixels is read as the service reads it. An error above the limit names the flag."""
    good_files(tmp_path, 3)
    Image.new("L", (8000, 5000), 99).save(tmp_path / "z.jpg")
    images = read_folder(tmp_path, image_size=(16, 16), resize=Resize()).images
    shape = ImageShape(height=16, width=16, channels=1)
    data = (tmp_path / "z.jpg").read_bytes()
    served = decode_file(data, shape=shape, resize=Resize(), max_pixels=40_000_000)
    np.testing.assert_array_equal(images[3], served)
    with pytest.raises(
        BadData, match=r"z\.jpg .*8000x5000 is more than the limit of 39999999 pixels: --max-p"
    ):
        load_dataset(Config(dataset=str(tmp_path), image_size=(16, 16), max_pixels=39_999_999))


def test_limit_may_exceed_that_of_pillow(tmp_path: Path) -> None:
    """Pillow's own limit of 179 megapixels neither refuses nor warns."""
    good_files(tmp_path, 3)
    Image.new("1", (20_000, 9_000)).save(tmp_path / "z.png")
    with pytest.raises(BadData, match="20000x9000 is more than the limit of 100000000 pixels"):
        load_dataset(Config(dataset=str(tmp_path), image_size=(16, 16)))
    settings = {"image_size": (16, 16), "max_pixels": 180_000_000, "validation_share": 0.0}
    dataset = load_dataset(config_from({"dataset": str(tmp_path), **settings}))
    assert len(dataset.train) == 3
