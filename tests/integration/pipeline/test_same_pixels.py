"""One file has the same pixels, or the same fault, in training, in bulk embedding and in the service."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convvae import Client, InvalidInput
from convvae_service.bundle import ImageShape, Resize
from convvae_service.images import ModelInput, open_source
from convvae_trainer.data.folder import read_folder
from convvae_trainer.errors import BadData
from support.png_file import chunk, png_file, scanlines
from support.serving import ServerProcess
from support.source_reading import read_source

pytestmark = pytest.mark.one_front

GREY_16 = np.random.default_rng(0).integers(0, 1 << 16, (9, 11, 1), np.uint16)
RGB_16 = np.random.default_rng(1).integers(0, 1 << 16, (9, 11, 3), np.uint16)
GREY_8 = np.asarray(GREY_16 >> 8, np.uint16)
GREY_1 = np.asarray(GREY_16 >> 15, np.uint16)
RULE = Resize(decode="scaled")
PHOTO = Image.fromarray((RGB_16 >> 8).astype(np.uint8))


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def transparency(samples: np.ndarray[tuple[int, ...], np.dtype[np.uint16]]) -> list[bytes]:
    return [chunk(b"tRNS", samples[4, 5].astype(">u2").tobytes())]


GOOD = {
    "grey.png": png_file(GREY_16, depth=16, colour=0, before=transparency(GREY_16)),
    "colour.png": png_file(RGB_16, depth=16, colour=2, before=transparency(RGB_16), interlaced=True),
    "grey alpha.png": png_file(GREY_16.repeat(2, axis=2), depth=16, colour=4),
    "bits.png": png_file(GREY_1, depth=1, colour=0, before=[chunk(b"tRNS", b"\0\1")]),
    "metadata.png": png_file(GREY_8, depth=8, colour=0, before=[chunk(b"pHYs"), chunk(b"iCCP", b"x")]),
    "inks.jpg": saved(PHOTO.convert("CMYK"), "JPEG"),
    "large.jpg": saved(PHOTO.resize((97, 131)), "JPEG"),
    "progressive.jfif": saved(PHOTO, "JPEG", progressive=True, comment=b"x" * 60_000),
    "alpha.webp": saved(PHOTO.convert("RGBA"), "WEBP"),
}
BAD = {
    "half.png": (
        png_file(GREY_8, depth=8, colour=0, rows=scanlines(GREY_8, 8)[: 4 * 12]),
        "image file is cut short: 60 bytes of its pixels are missing",
    ),
    "cut.jpg": (saved(PHOTO, "JPEG")[:-2], "image file is cut short"),
    "empty.png": (b"", "the file is empty"),
    "page.jpg": (b"<!doctype html>", "not a JPEG, PNG or WebP image"),
}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder of good files of several kinds, and one of bad files."""
    for folder, contents in (("good", GOOD), ("bad", {name: data for name, (data, _) in BAD.items()})):
        (tmp_path / folder).mkdir()
        for name, data in contents.items():
            (tmp_path / folder / name).write_bytes(data)
    return tmp_path


def test_same_pixels(files: Path, tiny_server: ServerProcess) -> None:
    """The service encodes a file as it encodes the pixels that training reads from it."""
    model_input = ModelInput("tiny", ImageShape(height=8, width=6, channels=1), RULE)
    embedded = read_source(open_source(str(files / "good")), model_input)
    trained = read_folder(files / "good", image_size=(8, 6), resize=RULE, channels=1)
    assert list(embedded.ids) == sorted(GOOD)
    np.testing.assert_array_equal(trained.images, embedded.images)
    with Client(tiny_server.target) as client:
        of_files = client.encode([files / "good" / name for name in sorted(GOOD)])
        of_pixels = client.encode(trained.images)
    np.testing.assert_array_equal(of_files.mean, of_pixels.mean)


def test_same_faults(files: Path, tiny_server: ServerProcess) -> None:
    """A bad file has one reason, wherever it is read."""
    model_input = ModelInput("tiny", ImageShape(height=8, width=6, channels=1), Resize())
    rejected = read_source(open_source(str(files / "bad")), model_input).rejected
    assert {row.id: row.reason for row in rejected} == {name: reason for name, (_, reason) in BAD.items()}
    with pytest.raises(BadData) as caught:
        read_folder(files / "bad", image_size=(8, 6), resize=Resize())
    for name, (data, reason) in BAD.items():
        assert f"{name} ({reason})" in str(caught.value)
        if data:
            with Client(tiny_server.target) as client, pytest.raises(InvalidInput) as refused:
                client.encode([data])
            assert reason in str(refused.value)
