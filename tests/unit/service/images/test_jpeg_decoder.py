"""simplejpeg and Pillow give the same pixels and the same reasons, at every scale."""

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin

from convvae_service.bundle import ImageShape, Resize
from convvae_service.images import InvalidImage, decode, decode_file, jpeg_decoder, read_header

simplejpeg = pytest.importorskip("simplejpeg")

SCALED = Resize(decode="scaled")
SMALL = ImageShape(height=8, width=8, channels=3)
SMALL_GREY = ImageShape(height=8, width=8, channels=1)


def smooth(height: int, width: int) -> NDArray[np.uint8]:
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 7 + y / 13), np.cos(x / 5 - y / 9), np.sin(x * y / 300)]
    return np.stack([127 + 120 * wave for wave in waves], axis=-1).astype(np.uint8)


def noise(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)


def jpeg(picture: NDArray[np.uint8], mode: str = "RGB", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).convert(mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.fixture
def pillow_only(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Hide simplejpeg, as where it is not installed."""
    monkeypatch.setattr(jpeg_decoder, "simplejpeg", None)
    return monkeypatch


def outcome(data: bytes, shape: ImageShape, resize: Resize) -> bytes | str:
    try:
        return decode_file(data, shape=shape, resize=resize).tobytes()
    except InvalidImage as error:
        return str(error)


def with_and_without(data: bytes, shape: ImageShape, resize: Resize) -> tuple[bytes | str, bytes | str]:
    """Return what simplejpeg and what Pillow makes of a file."""
    fast = outcome(data, shape, resize)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jpeg_decoder, "simplejpeg", None)
        return fast, outcome(data, shape, resize)


@pytest.mark.parametrize("resize", [Resize(), SCALED, Resize(mode="stretch", decode="scaled")], ids=str)
@pytest.mark.parametrize("shape", [SMALL, SMALL_GREY], ids=str)
@pytest.mark.parametrize("size", [(8, 8), (31, 33), (70, 41), (130, 259)], ids=str)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_pixels_are_equal(mode: str, size: tuple[int, int], shape: ImageShape, resize: Resize) -> None:
    """Each kind of JPEG has the same pixels in both decoders, in colour and grey, at full size and scaled."""
    variants: list[dict[str, Any]] = [{}, {"progressive": True}, {"quality": 30}]
    if mode == "RGB":
        variants += [{"subsampling": 0}, {"subsampling": 1}, {"keep_rgb": True}]
    for picture in (smooth(*size), noise(*size)):
        for options in variants:
            fast, slow = with_and_without(jpeg(picture, mode, **options), shape, resize)
            assert isinstance(fast, bytes)
            assert fast == slow


ORDINARY = jpeg(smooth(8, 8))


def test_an_ordinary_file_needs_no_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A JPEG of the model's size is decoded without an object of Pillow."""
    monkeypatch.setattr(Image.Image, "__init__", lambda *_: pytest.fail("Pillow is used"))
    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "__init__", lambda *_: pytest.fail("Pillow is used"))
    assert decode_file(ORDINARY, shape=SMALL, resize=Resize()).shape == SMALL.as_tuple


def test_the_memory_of_a_small_picture_does_not_begin_at_a_multiple_of_32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There, libjpeg-turbo writes past the caches, and a small picture takes half as long again."""
    starts = []
    decode_jpeg = simplejpeg.decode_jpeg

    def recorded(data: bytes, *, buffer: memoryview, **options: Any) -> Any:
        starts.append(np.frombuffer(buffer, np.uint8).ctypes.data % 32)
        return decode_jpeg(data, buffer=buffer, **options)

    monkeypatch.setattr(simplejpeg, "decode_jpeg", recorded)
    for _ in range(32):
        decode_file(ORDINARY, shape=SMALL, resize=Resize())
    assert len(starts) == 32
    assert 0 not in starts


def damaged(data: bytes, seed: int) -> bytes:
    """Return a file with a few wrong bytes after its header."""
    random = np.random.default_rng(seed)
    changed = bytearray(data)
    start = data.index(b"\xff\xda") + 14
    for place in random.integers(start, len(data) - 2, 3):
        changed[place] = random.integers(0, 255)
    return bytes(changed)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 1}], ids=str)
def test_wrong_bytes_between_sound_ones(options: dict[str, Any]) -> None:
    """What libjpeg passes over gives the same pixels; a fault that ends a picture early is found."""
    data = jpeg(smooth(64, 64), **options)
    found = set()
    for seed in range(200):
        fast, slow = with_and_without(damaged(data, seed), SMALL, Resize())
        if fast != slow:
            assert fast == "image file is cut short"
        found.add("pixels" if isinstance(fast, bytes) else fast)
    assert found >= {"pixels", "image file is cut short"}


@pytest.mark.parametrize("resize", [Resize(), SCALED], ids=str)
@pytest.mark.parametrize("progressive", [False, True])
def test_short_pixels_with_an_end_marker_are_refused(progressive: bool, resize: Resize) -> None:
    """A file whose pixels end early is refused even if its end marker is there."""
    data = jpeg(noise(96, 96), progressive=progressive)
    for length in range(len(data) * 2 // 3, len(data) - 20, 97):
        assert outcome(data[:length] + b"\xff\xd9", SMALL, resize) == "image file is cut short"


@pytest.mark.usefixtures("pillow_only")
@pytest.mark.parametrize("resize", [Resize(), SCALED], ids=str)
def test_a_cut_file_is_refused_without_simplejpeg(resize: Resize) -> None:
    """Pillow alone refuses a file without its end, at every scale."""
    data = jpeg(noise(96, 96))
    for length in range(3, len(data), 97):
        assert outcome(data[:length], SMALL, resize) == "image file is cut short"


def test_the_limit_comes_before_the_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file with too many pixels costs no memory and no decoding, at any scale."""
    monkeypatch.setattr(decode, "jpeg_pixels", lambda *_, **__: pytest.fail("it was decoded"))
    for resize in (Resize(), SCALED):
        with pytest.raises(InvalidImage, match="96x96 is more than the limit of 9215 pixels"):
            decode_file(jpeg(noise(96, 96)), shape=SMALL, resize=resize, max_pixels=9215)


def test_a_size_that_only_the_decoder_sees_is_refused() -> None:
    """A second frame header, which would change the size, gives no pixels."""
    data = jpeg(smooth(64, 64))
    start = data.index(b"\xff\xc0")
    second = bytearray(data[start : start + 19])
    second[5:9] = b"\x20\x00\x20\x00"
    for place in (start, start + 19):
        file = data[:place] + bytes(second) + data[place:]
        if place == start:
            assert read_header(file).shape[:2] == (0x2000, 0x2000)
        fast, slow = with_and_without(file, SMALL, Resize())
        assert fast == slow == "damaged image"
