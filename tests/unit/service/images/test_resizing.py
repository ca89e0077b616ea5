"""Files of another size: crop, stretch, and JPEG files that the decoder scales down."""

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from convvae_service.bundle import ImageShape, Resize
from convvae_service.images import ImageHeader, decode_file, resize_pixels, upright
from convvae_service.images.resizing import decoding_scale

SCALED = Resize(decode="scaled")


def shape_of(height: int, width: int, channels: int = 3) -> ImageShape:
    return ImageShape(height=height, width=width, channels=channels)


def picture(height: int, width: int) -> NDArray[np.uint8]:
    """Return a picture with coarse and fine detail, different in every corner."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = [np.sin(9 * x + 4 * y), np.cos(14 * x * y + x), np.sin(300 * x) * np.cos(200 * y)]
    return np.stack([127 + 120 * wave for wave in waves], axis=-1).astype(np.uint8)


def encode(array: NDArray[np.uint8], form: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, form, **({"quality": 95} if form == "JPEG" else {}) | options)
    return buffer.getvalue()


def header(height: int, width: int, orientation: int = 1) -> ImageHeader:
    return ImageHeader(
        height=height, width=width, channels=3, orientation=orientation, content=b"", held_bytes=0
    )


@pytest.mark.parametrize(
    ("size", "target", "scale"),
    [
        ((1024, 1024), (64, 64), 8),
        ((1023, 1024), (64, 64), 4),
        ((512, 9999), (64, 64), 4),
        ((256, 256), (64, 64), 2),
        ((256, 255), (64, 64), 1),
        ((64, 64), (64, 64), 1),
        ((16, 16), (1, 1), 2),
        ((15, 16), (1, 1), 1),
        ((64, 64), (1, 1), 8),
        ((300, 100), (40, 10), 2),
        ((640, 160), (40, 10), 8),
    ],
)
def test_the_scale_leaves_twice_the_models_size(
    size: tuple[int, int], target: tuple[int, int], scale: int
) -> None:
    """The largest scale is taken that leaves twice both sides, and 8 pixels."""
    assert decoding_scale(header(*size), shape=shape_of(*target), resize=SCALED) == scale


def test_the_upright_sides_count() -> None:
    """A picture that is stored on its side is compared as it is seen."""
    assert decoding_scale(header(640, 160, 6), shape=shape_of(10, 40), resize=SCALED) == 8
    assert decoding_scale(header(640, 160, 3), shape=shape_of(10, 40), resize=SCALED) == 2


@pytest.mark.parametrize("resize", [Resize(), Resize(filter="nearest", decode="scaled")], ids=str)
def test_other_rules_decode_at_full_size(resize: Resize) -> None:
    """Bundles without the key, and the filter that takes single pixels, keep the pixels that they had."""
    assert decoding_scale(header(4096, 4096), shape=shape_of(8, 8), resize=resize) == 1


@pytest.mark.parametrize("mode", ["crop", "stretch"])
@pytest.mark.parametrize("target", [(8, 8), (9, 14)], ids=str)
@pytest.mark.parametrize("size", [(160, 160), (157, 203), (301, 173)], ids=str)
def test_scaled_pictures_are_close_to_full_ones(
    size: tuple[int, int], target: tuple[int, int], mode: Any
) -> None:
    """A scaled picture differs by a few grey levels, and is not shifted by sides that do not divide."""
    data = encode(picture(*size))
    full, scaled = (
        decode_file(data, shape=shape_of(*target), resize=Resize(mode=mode, decode=decode)).astype(float)
        for decode in ("full", "scaled")
    )
    assert 0 < np.abs(full - scaled).max() < 16
    assert np.abs(full - scaled).mean() < 1.5


@pytest.mark.parametrize("mode", ["crop", "stretch"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_scaled_pictures_are_turned(orientation: int, mode: Any) -> None:
    """Each orientation gives the picture that full decoding gives, also if the sides do not divide."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(picture(157, 203), exif=exif)
    full, scaled = (
        decode_file(data, shape=shape_of(9, 14), resize=Resize(mode=mode, decode=decode)).astype(float)
        for decode in ("full", "scaled")
    )
    assert 0 < np.abs(full - scaled).max() < 16
    assert np.abs(full - scaled).mean() < 1.5


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_other_formats_are_decoded_at_full_size(form: str) -> None:
    """The rule is about JPEG files only."""
    data = encode(picture(160, 160), form)
    full, scaled = (decode_file(data, shape=shape_of(8, 8), resize=rule) for rule in (Resize(), SCALED))
    np.testing.assert_array_equal(full, scaled)


@pytest.mark.parametrize("seed", range(40))
def test_a_crop_is_pillows(seed: int) -> None:
    """A crop has the pixels of Pillow's `ImageOps.fit`, by which the first models were trained."""
    random = np.random.default_rng(seed)
    height, width, target_height, target_width = (int(side) for side in random.integers(1, 60, 4))
    array = random.integers(0, 256, (height, width, 3), np.uint8)
    expected = ImageOps.fit(Image.fromarray(array), (target_width, target_height), Image.Resampling.BICUBIC)
    found = resize_pixels(array, shape=shape_of(target_height, target_width), resize=Resize())
    np.testing.assert_array_equal(found, np.asarray(expected))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["crop", "stretch"])
@pytest.mark.parametrize("kernel", ["nearest", "bicubic"])
@pytest.mark.parametrize("kind", ["JPEG", "scaled JPEG", "RGBA", "grey", "16 bits", "palette"])
def test_strips_give_the_pixels_of_the_whole_picture(
    monkeypatch: pytest.MonkeyPatch, orientation: int, mode: Any, kernel: Any, kind: str
) -> None:
    """A large picture is converted and turned in strips. Its pixels are those of one step."""
    rng = np.random.default_rng(orientation)
    array = rng.integers(0, 256, (67, 121, 4), np.uint8)
    image = {
        "RGBA": lambda: Image.fromarray(array),
        "grey": lambda: Image.fromarray(array[..., 0]),
        "16 bits": lambda: Image.fromarray(array[..., :2].copy().view(np.uint16)[..., 0]),
        "palette": lambda: Image.fromarray(array[..., :3]).quantize(31),
    }.get(kind, lambda: Image.fromarray(array[..., :3]))()
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, "JPEG" if "JPEG" in kind else "PNG", exif=exif)
    resize = Resize(mode=mode, filter=kernel, decode="scaled" if kind == "scaled JPEG" else "full")
    for target in [(9, 14), (67, 121), (150, 20), (121, 67)]:
        shape = shape_of(*target)
        whole = decode_file(buffer.getvalue(), shape=shape, resize=resize)
        for strip_pixels in (1, 500):
            monkeypatch.setattr(upright, "_STRIP_PIXELS", strip_pixels)
            np.testing.assert_array_equal(decode_file(buffer.getvalue(), shape=shape, resize=resize), whole)
        monkeypatch.undo()
