"""Pictures that Pillow decodes: PNG, WebP, and the JPEG files that simplejpeg does not read."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from convvae_service.bundle import ImageShape, Resize
from convvae_service.images.channels import eight_bit
from convvae_service.images.header import TINY_PIXELS, ImageHeader, InvalidImage
from convvae_service.images.jpeg import JPEG_SIGNATURE, without_metadata
from convvae_service.images.picture import Box, Picture, picture_of_image
from convvae_service.images.png import PNG_SIGNATURE, check_rows, packed_pixels
from convvae_service.images.resizing import fit_picture

__all__ = ["decode_with_pillow", "pillow_pixels", "pillow_shape"]

_ORIENTATION = 0x0112
_SMALL_BYTES = 1 << 16
# Pillow's mode by depth, colour, compression, filter and interlace in the header of a PNG.
_PLAIN_MODES = {
    b"\x08\0\0\0\0": "L",
    b"\x08\2\0\0\0": "RGB",
    b"\x08\4\0\0\0": "LA",
    b"\x08\6\0\0\0": "RGBA",
}
_GREY_MODES = frozenset({"1", "L", "LA", "I", "I;16", "I;16B", "I;16L"})


class _FirstFrame(WebPImageFile):
    """A WebP file that is read once: the canvases of its animation are dropped before the picture is made."""

    def load_prepare(self) -> None:
        self._decoder = None
        super().load_prepare()


def decode_with_pillow(
    header: ImageHeader, *, shape: ImageShape, resize: Resize, scale: int
) -> NDArray[np.uint8]:
    """Decode the file of a header and bring it to the model's shape.

    Args:
        header: The header of a JPEG, PNG or WebP file.
        shape: The model's image shape.
        resize: The rule for images of another size.
        scale: The number by which the height and width of a JPEG are divided while it is decoded; else 1.

    Raises:
        InvalidImage: The pixels are damaged, or end early.
    """
    try:
        if (plain := _plain_png(header)) is not None:
            return fit_picture(picture_of_image(plain), header, shape=shape, resize=resize)
        with _open(header) as image:
            if scale > 1:
                image.draft(None, (header.width // scale, header.height // scale))
            _load(image, header)
            picture = (
                picture_of_image(image) if header.transparent is None else _without_colour(image, header)
            )
            return fit_picture(picture, header, shape=shape, resize=resize, scale=scale)
    except (InvalidImage, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - Pillow's parsers raise many kinds of errors
        raise InvalidImage(_reason(error)) from None


def pillow_pixels(image: Image.Image, *, shape: ImageShape, resize: Resize) -> NDArray[np.uint8]:
    """Bring an image that Pillow has opened to the model's shape, by the rules of `decode_file`.

    Raises:
        InvalidImage: The image cannot be decoded, or has floating-point pixels.
    """
    try:
        image.load()
        return fit_picture(picture_of_image(image), _header_of(image), shape=shape, resize=resize)
    except (InvalidImage, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - as in decode_with_pillow
        raise InvalidImage(_reason(error)) from None


def pillow_shape(image: Image.Image) -> tuple[int, int, int]:
    """Return (height, width, channels) of an image that Pillow has opened, by the rules of `read_header`."""
    return _header_of(image).shape


def _header_of(image: Image.Image) -> ImageHeader:
    return ImageHeader(
        width=image.width,
        height=image.height,
        channels=1 if image.mode in _GREY_MODES else 3,
        orientation=_pillow_orientation(image),
        content=b"",
        held_bytes=0,
    )


def _open(header: ImageHeader) -> ImageFile:
    """Open the file with the reader of its format.

    `Image.open` would also refuse, or warn of, sizes that `max_pixels` allows.
    """
    if header.content.startswith(JPEG_SIGNATURE):
        return JpegImageFile(io.BytesIO(without_metadata(header.content)))
    file = io.BytesIO(header.content)
    return PngImageFile(file) if header.content.startswith(PNG_SIGNATURE) else _FirstFrame(file)


def _plain_png(header: ImageHeader) -> Image.Image | None:
    """Return a small PNG of 8 bits without a palette; or None, also if its pixels are damaged.

    `PngImageFile` would read the chunks again, which takes as long as the pixels of a small file.
    """
    content, size = header.content, (header.width, header.height)
    is_small = header.width * header.height <= TINY_PIXELS and len(content) <= _SMALL_BYTES
    if not is_small or header.transparent is not None or not content.startswith(PNG_SIGNATURE):
        return None
    mode = _PLAIN_MODES.get(content[24:29])
    if mode is None:
        return None
    try:
        image = Image.frombytes(mode, size, b"".join(packed_pixels(content)), "zip", mode)
    except ValueError:
        return None
    if _may_lack_rows(image):
        check_rows(content)
    return image


def _reason(error: Exception) -> str:
    # Only the text of Pillow's error distinguishes a file that ends early from other damage.
    return "image file is cut short" if "truncated" in str(error) else "damaged image"


def _load(image: ImageFile, header: ImageHeader) -> None:
    is_png = isinstance(image, PngImageFile)
    try:
        image.load()
    except OSError:
        if is_png:
            check_rows(header.content)  # its reason says more
        raise
    if is_png and _may_lack_rows(image):
        check_rows(header.content)


def _may_lack_rows(image: Image.Image) -> bool:
    """Return whether rows may be missing. Only then are the pixels decompressed again and counted."""
    if image.info.get("interlace"):
        return True
    last_row = image.crop((0, image.height - 1, image.width, image.height))
    return not last_row.tobytes().strip(b"\0")


def _without_colour(image: ImageFile, header: ImageHeader) -> Picture:
    """Return a PNG with its transparent colour in black. Pillow does not know such a colour at all depths."""
    colour = header.transparent or ()
    if header.depth < 8:
        colour = tuple(sample * 255 // ((1 << header.depth) - 1) for sample in colour)
    lower = _lower_bytes(header) if header.depth == 16 and header.channels == 3 else None

    def part(box: Box) -> Image.Image:
        cut = image.crop(box)
        pixels = np.asarray(eight_bit(cut).convert("L" if header.channels == 1 else "RGB")).copy()
        samples = np.asarray(cut) if header.depth == 16 and header.channels == 1 else pixels
        if lower is None:
            is_transparent = _equal(samples, colour)
        else:
            is_transparent = _equal(pixels, [sample >> 8 for sample in colour])
            is_transparent &= _equal(np.asarray(lower.crop(box)), [sample & 255 for sample in colour])
        pixels[is_transparent] = 0
        return Image.fromarray(pixels)

    return Picture(image.width, image.height, "", part)


def _equal(samples: NDArray[Any], colour: Sequence[int]) -> NDArray[np.bool_]:
    """Return which pixels have this colour: samples of shape (height, width) or (height, width, 3)."""
    planes = samples[..., np.newaxis] if samples.ndim == 2 else samples
    equal = planes[..., 0] == colour[0]
    for plane, sample in enumerate(colour[1:], start=1):
        equal &= planes[..., plane] == sample
    return np.asarray(equal)


def _lower_bytes(header: ImageHeader) -> Image.Image:
    """Return the lower bytes of a PNG in colour with 16 bits. Pillow decodes the upper ones."""
    with _open(header) as lower:
        # Read as little-endian, the lower bytes are in the place of the upper ones.
        lower.tile = [tile._replace(args="RGB;16L") for tile in lower.tile]
        lower.load()
        return lower


def _pillow_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 if it is absent or unreadable."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - metadata may hold anything; an image with damaged EXIF is still an image
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
