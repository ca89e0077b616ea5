"""WebP files of every kind: lossy, lossless, with alpha, animated, with metadata, cut."""

import io
import struct

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from convvae_service.bundle import ImageShape, Resize
from convvae_service.images import InvalidImage, decode_file, read_header

HEIGHT, WIDTH = 24, 40
EXIF = b"MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"


def smooth() -> NDArray[np.uint8]:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([40 + 4 * x, 60 + 5 * y, 200 - 2 * x - y, 255 - 6 * x], axis=-1).astype(np.uint8)


def webp(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", **options)
    return buffer.getvalue()


def decode(data: bytes) -> NDArray[np.uint8]:
    """Decode a file at its own size."""
    height, width, channels = read_header(data).shape
    shape = ImageShape(height=height, width=width, channels=channels)
    return decode_file(data, shape=shape, resize=Resize())


def over_black(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    alpha = image[..., 3:].astype(float)
    return np.asarray(np.rint(image[..., :3] * alpha / 255), np.uint8)


RGB, RGBA = Image.fromarray(smooth()[..., :3]), Image.fromarray(smooth())
KINDS = {
    "lossless": (webp(RGB, lossless=True), smooth()[..., :3], 0),
    "lossless with alpha": (webp(RGBA, lossless=True, exact=True), over_black(smooth()), 0),
    "lossy": (webp(RGB, quality=95), smooth()[..., :3], 12),
    "lossy with alpha": (webp(RGBA, quality=95), over_black(smooth()), 14),
    "animation": (
        webp(RGB, lossless=True, save_all=True, append_images=[Image.new("RGB", RGB.size)] * 3),
        smooth()[..., :3],
        0,
    ),
    "grey": (webp(RGB.convert("L"), lossless=True), np.asarray(RGB.convert("L").convert("RGB")), 0),
    "colour profile": (webp(RGB, lossless=True, icc_profile=b"odd" * 999), smooth()[..., :3], 0),
    "XMP": (webp(RGB, lossless=True, xmp=b"\xff\0odd"), smooth()[..., :3], 0),
    "damaged EXIF": (webp(RGB, lossless=True, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"), smooth()[..., :3], 0),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind(name: str) -> None:
    """The pixels are the original's, within the codec's loss. The size is read from each kind of header."""
    data, expected, loss = KINDS[name]
    assert read_header(data).shape == (HEIGHT, WIDTH, 3)
    assert np.abs(decode(data).astype(int) - expected).max() <= loss


@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0"])
def test_orientation(prefix: bytes) -> None:
    """EXIF turns the picture; some programs store it with the prefix that JPEG needs."""
    data = webp(RGB, lossless=True, exif=prefix + EXIF)
    assert read_header(data).shape == (WIDTH, HEIGHT, 3)
    np.testing.assert_array_equal(decode(data), np.rot90(smooth()[..., :3], -1))


@pytest.mark.parametrize("name", ["lossless", "lossy", "lossy with alpha", "animation", "XMP"])
def test_file_that_is_cut_anywhere_is_refused(name: str) -> None:
    """The reason is true at every length."""
    data = KINDS[name][0]
    for length in range(12, len(data)):
        with pytest.raises(InvalidImage, match="image file is cut short"):
            decode(data[:length])


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"WEBP" + b"".join(struct.pack("<4sI", kind, len(content)) + content for kind, content in chunks)
    return struct.pack("<4sI", b"RIFF", len(body)) + body


@pytest.mark.parametrize(
    "data",
    [
        riff(),
        riff((b"ABCD", bytes(20))),
        riff((b"VP8 ", bytes(20))),
        riff((b"VP8L", bytes(20))),
        riff((b"VP8X", bytes(3))),
        riff((b"VP8X", bytes(10))),
        riff((b"VP8 ", bytes(3) + b"\x9d\x01\x2a" + bytes(4))),
        riff((b"VP8L", b"\x2f" + bytes(20))),
    ],
)
def test_damaged_header_or_pixels_are_refused(data: bytes) -> None:
    """A container with anything in it is damaged, not something else."""
    with pytest.raises(InvalidImage, match=r"^damaged"):
        decode(data)


def test_canvas_is_compared_with_the_limit_before_it_is_allocated() -> None:
    """A small file that claims a canvas of 16384 x 16384 is refused by its header."""
    data = riff((b"VP8X", bytes(4) + b"\xff\x3f\0\xff\x3f\0"))
    with pytest.raises(InvalidImage, match="16384x16384 is more than the limit of 100000000 pixels"):
        decode_file(data, shape=ImageShape(height=8, width=8, channels=3), resize=Resize())
