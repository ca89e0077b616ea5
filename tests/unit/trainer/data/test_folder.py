"""Folders of image files: their shapes, whatever the files hold, and what cannot be read."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from convvae_service.bundle import ImageShape, Resize
from convvae_service.images import InvalidImage, decode_file, read_header
from convvae_trainer.data.dataset import load_dataset, load_other
from convvae_trainer.data.folder import read_folder
from convvae_trainer.errors import BadData
from convvae_trainer.settings.config import Config


def load(path: Path) -> Any:
    return load_dataset(Config(dataset=str(path)))


def with_exif(path: Path, orientation: int, *, size: tuple[int, int] = (12, 10)) -> bytes:
    path.parent.mkdir(exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010E] = "a description, so that there is something to damage"
    Image.effect_noise(size, 50).save(path, exif=exif)
    return path.read_bytes()


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_exif_decides_the_size(tmp_path: Path, suffix: str) -> None:
    """A picture that lies on its side counts as it is seen; damaged EXIF is none."""
    for number in range(3):
        data = with_exif(tmp_path / f"{number}.{suffix}", 6)
    assert load(tmp_path).train.shape[1:3] == (12, 10)
    place = data.index(b"\x12\x01" if b"II*" in data else b"\x01\x12")
    (tmp_path / f"0.{suffix}").write_bytes(data[: place + 2] + b"\xff\xff" + data[place + 4 :])
    for number in (1, 2):
        with_exif(tmp_path / f"{number}.{suffix}", 1)
    if suffix != "png":  # whose checksum does not fit any more
        assert load(tmp_path).train.shape[1:3] == (10, 12)


EXAMPLES: list[bytes] = []


def examples(folder: Path) -> list[bytes]:
    if not EXAMPLES:
        EXAMPLES.extend(
            with_exif(folder / f"x.{suffix}", orientation)
            for suffix in ("jpg", "png", "webp")
            for orientation in (1, 6)
        )
    return EXAMPLES


# Other jobs on the machine are no reason to fail.
@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.integers(0, 5), st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=4), st.data()
)
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_any_file_has_the_shape_that_it_decodes_to(
    tmp_path_factory: pytest.TempPathFactory, number: int, changes: list[tuple[int, int]], draw: st.DataObject
) -> None:
    """Shape and pixels of a changed file agree, or it is refused by one error; no other error escapes."""
    data = bytearray(examples(tmp_path_factory.getbasetemp())[number])
    for place, value in changes:
        data[place % len(data)] = value
    data = data[: draw.draw(st.integers(len(data) // 2, len(data)))]
    resized: list[tuple[int, int]] = []
    resize = Image.Image.resize

    def note(self: Image.Image, *args: Any, **kwargs: Any) -> Image.Image:
        resized.append(self.size)
        return resize(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image.Image, "resize", note)
        try:
            height, width, channels = read_header(bytes(data)).shape
            assume(height <= 4096 and width <= 4096)
            shape = ImageShape(height=height, width=width, channels=channels)
            decode_file(bytes(data), shape=shape, resize=Resize(mode="stretch"))
        except InvalidImage:
            return
    # A picture of another size than was said would have been resized to it.
    assert resized == []


# Pillow warns of it, which the command line leaves out.
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_a_picture_with_damaged_exif_is_a_picture(tmp_path: Path) -> None:
    """Metadata that cannot be read end no run."""
    for number in range(3):
        data = with_exif(tmp_path / f"{number}.jpg", 1)
    start = data.index(b"Exif\0\0") + 6
    for cut in range(8, 60):
        (tmp_path / "0.jpg").write_bytes(data[: start + cut] + b"\xff" * 12 + data[start + cut + 12 :])
        assert load(tmp_path).train.shape[1:] == (10, 12, 1)


def test_a_folder_that_cannot_be_listed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its images would be missing from the training, and nobody would know."""
    for number in range(6):
        with_exif(tmp_path / "ab"[number % 2] / f"{number}.png", 1)
    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("/b"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(BadData, match="/b cannot be listed: Permission denied"):
        load(tmp_path)


def test_a_photographs_size_is_refused_before_the_memory_is_taken(tmp_path: Path) -> None:
    """The message says what helps."""
    for number in range(3):
        with_exif(tmp_path / f"{number}.png", 1, size=(300, 400))
    with pytest.raises(BadData, match=r"0\.png are 400x300: each side must be 8 to 256 pixels; --image-size"):
        load(tmp_path)


def mixed_folder(folder: Path, *, grey: int, colour: int) -> None:
    """Make a folder that is sorted by class, all grey files first."""
    for name, count, mode in (("a_scans", grey, "L"), ("b_photos", colour, "RGB")):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = np.random.default_rng(number).integers(0, 256, (8, 9, 3), dtype=np.uint8)
            Image.fromarray(pixels).convert(mode).save(folder / name / f"{number:03}.png")


def test_a_folder_sorted_by_class_keeps_its_colours(tmp_path: Path) -> None:
    """Colour anywhere makes all images RGB, the mixture is said, and grey files are as if read as RGB."""
    mixed_folder(tmp_path, grey=70, colour=4)
    images, paths, note, *_ = read_folder(tmp_path, image_size=None, resize=Resize())
    assert images.shape == (74, 8, 9, 3)
    assert (paths[0], paths[-1]) == ("a_scans/000.png", "b_photos/003.png")
    assert note == "70 of 74 pictures are grey, read as RGB"
    assert load(tmp_path).split.endswith(f"; {note}")
    forced, *_ = read_folder(tmp_path, image_size=None, resize=Resize(), channels=3)
    np.testing.assert_array_equal(images, forced)
    grey, _, note, *_ = read_folder(tmp_path, image_size=(8, 8), resize=Resize(), channels=1)
    assert grey.shape == (74, 8, 8, 1)
    assert note == "4 of 74 pictures are in colour, read as grey"


def test_a_folder_of_one_kind_is_not_remarked(tmp_path: Path) -> None:
    """Only what was changed is said."""
    mixed_folder(tmp_path, grey=3, colour=0)
    assert read_folder(tmp_path, image_size=None, resize=Resize())[2] == ""
    assert load(tmp_path).image.channels == 1


@pytest.mark.parametrize(("channels", "words"), [(3, "grey, read as RGB"), (1, "in colour, read as grey")])
def test_other_data_have_the_models_colours(tmp_path: Path, channels: int, words: str) -> None:
    """A model is evaluated on files of any colours, as the service would take them."""
    mixed_folder(tmp_path, grey=0 if channels == 1 else 4, colour=4 if channels == 1 else 0)
    config = Config(dataset=str(tmp_path))
    (images, _), split, _ = load_other(config, own="another", channels=channels)
    assert images.shape == (4, 8, 9, channels)
    assert split == f"all 4 images; all 4 pictures are {words}"
