import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from convvae_service.bundle import ImageShape, Resize
from convvae_service.images import InvalidImage, decode_file, resize_pixels
from support.wire import png_bomb

GREY = ImageShape(height=4, width=6, channels=1)
RGB = ImageShape(height=4, width=6, channels=3)
RESIZE = Resize()


def encode(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def noise(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def seeds() -> list[bytes]:
    """Return valid files of every format, and of the modes that need their own treatment."""
    array = noise(9, 7, 4)
    rgba, rgb = Image.fromarray(array), Image.fromarray(array[..., :3])
    exif = Image.Exif()
    exif[0x0112] = 6
    return [
        encode(rgb),
        encode(rgba),
        encode(rgba.convert("P")),
        encode(rgba.convert("LA")),
        encode(rgb.convert("1")),
        encode(Image.fromarray(array[..., 0].astype(np.uint16) * 257)),
        encode(rgb, "JPEG", exif=exif),
        encode(rgb, "JPEG", progressive=True),
        encode(rgb.convert("CMYK"), "JPEG"),
        encode(rgba, "WEBP"),
        encode(rgb, "WEBP", save_all=True, append_images=[rgb]),
    ]


SEEDS = seeds()


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_lossless_files_come_back_as_they_were(form: str) -> None:
    """A file of the model's size is neither resized nor changed."""
    array = noise(4, 6, 3)
    data = encode(Image.fromarray(array), form, **({"lossless": True} if form == "WEBP" else {}))
    np.testing.assert_array_equal(decode_file(data, shape=RGB, resize=RESIZE), array)


def test_jpeg_is_close_to_what_it_was() -> None:
    """A JPEG of a smooth image decodes to it within the codec's loss."""
    array = np.tile(np.linspace(0, 255, 6, dtype=np.uint8)[None, :, None], (4, 1, 3))
    decoded = decode_file(encode(Image.fromarray(array), "JPEG", quality=95), shape=RGB, resize=RESIZE)
    assert np.abs(decoded.astype(int) - array).max() < 12


def test_orientation_is_applied() -> None:
    """An image that a camera stored on its side is rotated upright."""
    upright = np.zeros((4, 6, 1), np.uint8)
    upright[0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # the stored rows are the picture's columns
    stored = Image.fromarray(np.rot90(upright[..., 0]).copy())
    decoded = decode_file(encode(stored, exif=exif), shape=GREY, resize=RESIZE)
    np.testing.assert_array_equal(decoded, upright)


def test_alpha_lies_over_black() -> None:
    """Transparent white is black, half-transparent white is grey."""
    array = np.full((4, 6, 4), 255, np.uint8)
    array[:2, :, 3] = 0
    array[2, :, 3] = 128
    decoded = decode_file(encode(Image.fromarray(array)), shape=GREY, resize=RESIZE)[..., 0]
    assert decoded[:, 0].tolist() == [0, 0, 128, 255]


def test_transparent_colour_of_a_palette_is_black() -> None:
    """A palette entry that is declared transparent counts as alpha 0."""
    image = Image.new("P", (6, 4), 1)
    image.putpalette([0, 0, 0, 255, 255, 255])
    decoded = decode_file(encode(image, transparency=1), shape=GREY, resize=RESIZE)
    assert decoded.max() == 0


def test_sixteen_bits_are_scaled() -> None:
    """0 and 65535 become 0 and 255, and values in between are scaled, not clipped."""
    wide = np.array([[0, 128, 257, 32768, 65278, 65535]] * 4, np.uint16)
    decoded = decode_file(encode(Image.fromarray(wide)), shape=GREY, resize=RESIZE)[0, :, 0]
    assert decoded.tolist() == [0, 0, 1, 128, 254, 255]


def test_grey_and_colour_follow_the_model() -> None:
    """A grey file has three equal channels for an RGB model; a colour file becomes luma for a grey one."""
    grey, colour = noise(4, 6), np.zeros((4, 6, 3), np.uint8)
    colour[..., 1] = 255
    as_rgb = decode_file(encode(Image.fromarray(grey)), shape=RGB, resize=RESIZE)
    np.testing.assert_array_equal(as_rgb, np.repeat(grey[..., None], 3, axis=2))
    assert set(decode_file(encode(Image.fromarray(colour)), shape=GREY, resize=RESIZE).flat) == {150}


def test_crop_keeps_the_centre_and_stretch_everything() -> None:
    """Cropping a wide picture loses its sides; stretching keeps them."""
    wide = np.zeros((4, 24, 1), np.uint8)
    wide[:, 9:15] = 255
    data = encode(Image.fromarray(wide[..., 0]))
    assert decode_file(data, shape=GREY, resize=Resize(mode="crop", filter="box")).min() == 255
    stretched = decode_file(data, shape=GREY, resize=Resize(mode="stretch", filter="box"))[0, :, 0]
    assert stretched[0] == stretched[-1] == 0


def test_files_and_arrays_take_one_road() -> None:
    """An array is resized to the same pixels as its file."""
    array = noise(13, 11, 3)
    data = encode(Image.fromarray(array))
    for resize in (Resize(), Resize(mode="stretch", filter="lanczos")):
        np.testing.assert_array_equal(
            resize_pixels(array, shape=GREY, resize=resize), decode_file(data, shape=GREY, resize=resize)
        )


def test_an_array_of_the_right_shape_is_not_copied() -> None:
    """`resize_pixels` returns an array of the right shape as it is."""
    array = noise(4, 6, 1)
    assert resize_pixels(array, shape=GREY, resize=RESIZE) is array


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"no image", "not a JPEG, PNG or WebP image"),
        (encode(Image.fromarray(noise(9, 7)), "GIF"), "not a JPEG, PNG or WebP image"),
        (encode(Image.fromarray(noise(64, 64, 3)), "JPEG")[:-400], "image file is cut short"),
        (encode(Image.fromarray(noise(64, 64, 3)))[:-400], "image file is cut short"),
    ],
)
def test_what_is_no_image_is_refused(data: bytes, message: str) -> None:
    """Empty, foreign and truncated files are refused with a message for the caller."""
    with pytest.raises(InvalidImage) as caught:
        decode_file(data, shape=GREY, resize=RESIZE)
    assert str(caught.value) == message


def test_a_bomb_is_refused_before_it_is_decoded() -> None:
    """A small file that claims a huge size takes neither the memory nor the time."""
    with pytest.raises(InvalidImage, match="60000x60000 is more than the limit of 100000000 pixels"):
        decode_file(png_bomb(), shape=GREY, resize=RESIZE)
    with pytest.raises(InvalidImage, match="20x20 is more than the limit of 399 pixels"):
        decode_file(encode(Image.new("L", (20, 20))), shape=GREY, resize=RESIZE, max_pixels=399)


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 10**6), st.binary(max_size=6)), max_size=6),
    st.integers(0, 10**6),
    st.sampled_from([GREY, RGB]),
)
def test_any_bytes_give_an_image_or_one_error(
    seed: bytes, edits: list[tuple[int, bytes]], length: int, shape: ImageShape
) -> None:
    """A mutated file is an image of the right shape or `InvalidImage`, never another exception."""
    data = bytearray(seed[: length % (2 * len(seed) + 1)])
    for position, patch in edits:
        start = position % (len(data) + 1)
        data[start : start + len(patch)] = patch
    try:
        decoded = decode_file(bytes(data), shape=shape, resize=RESIZE, max_pixels=10_000)
    except InvalidImage:
        return
    assert decoded.dtype == np.uint8
    assert decoded.shape == shape.as_tuple
