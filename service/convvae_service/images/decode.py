"""Image files decoded to the model's pixels: uint8, height x width x channels.

Training and serving use the same functions, so a file from a client is treated like a training file.
"""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from convvae_service.bundle import ImageShape, Resize
from convvae_service.images.header import ImageHeader, InvalidImage, TooManyPixels
from convvae_service.images.jpeg import JPEG_SIGNATURE, read_jpeg
from convvae_service.images.png import PNG_SIGNATURE, check_rows, read_png
from convvae_service.images.webp import is_webp, read_webp

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "decode_file",
    "file_shape",
    "pillow_pixels",
    "pillow_shape",
    "resize_pixels",
]

DEFAULT_MAX_PIXELS = 100_000_000

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_BLOCK_ROWS = 64
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_GREY_MODES = frozenset({"1", "L", "LA", "I", "I;16", "I;16B", "I;16L"})
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def decode_file(
    data: bytes, *, shape: ImageShape, resize: Resize, max_pixels: int = DEFAULT_MAX_PIXELS
) -> NDArray[np.uint8]:
    """Decode an image file and bring it to the model's shape.

    The EXIF orientation is applied, transparency is blended over black, 16-bit values become 8-bit values,
    and the image is converted to grey or RGB according to `shape.channels`. An animation gives its first
    frame. All other metadata are skipped.

    Args:
        data: A JPEG, PNG or WebP file.
        shape: The model's image shape.
        resize: The rule for images of another size.
        max_pixels: Largest width x height accepted, checked before decoding.

    Returns:
        uint8 array of shape (height, width, channels), 0 to 255.

    Raises:
        InvalidImage: `data` is not a readable image.
        TooManyPixels: It has more than `max_pixels`.
    """
    header = _read_header(data)
    if header.width * header.height > max_pixels:
        raise TooManyPixels(f"{header.width}x{header.height} is more than the limit of {max_pixels} pixels")
    try:
        with _open(header) as image:
            _load(image, header)
            upright = _turned(_without_colour(image, header), header.orientation)
            return _to_array(upright, shape=shape, resize=resize)
    except (InvalidImage, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - Pillow's parsers raise many kinds of errors
        raise InvalidImage(_reason(error)) from None


def file_shape(data: bytes) -> tuple[int, int, int]:
    """Return (height, width, channels) of an image file without decoding its pixels.

    Height and width are those after the EXIF orientation. Channels are 1 for grey files, otherwise 3.

    Raises:
        InvalidImage: `data` is not an image.
    """
    return _read_header(data).shape


def pillow_pixels(image: Image.Image, *, shape: ImageShape, resize: Resize) -> NDArray[np.uint8]:
    """Bring an image that Pillow has opened to the model's shape, by the rules of `decode_file`.

    Raises:
        InvalidImage: The image cannot be decoded, or has floating-point pixels.
    """
    try:
        image.load()
        return _to_array(_turned(image, _pillow_orientation(image)), shape=shape, resize=resize)
    except (InvalidImage, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - as in decode_file
        raise InvalidImage(_reason(error)) from None


def pillow_shape(image: Image.Image) -> tuple[int, int, int]:
    """Return (height, width, channels) of an image that Pillow has opened, by the rules of `file_shape`."""
    header = ImageHeader(
        width=image.width,
        height=image.height,
        channels=1 if image.mode in _GREY_MODES else 3,
        orientation=_pillow_orientation(image),
        content=b"",
    )
    return header.shape


def _read_header(data: bytes) -> ImageHeader:
    if data.startswith(PNG_SIGNATURE):
        return read_png(data)
    if data.startswith(JPEG_SIGNATURE):
        return read_jpeg(data)
    if is_webp(data):
        return read_webp(data)
    if not data:
        raise InvalidImage("the file is empty")
    if data.startswith(_LFS_POINTER):
        raise InvalidImage("the file is a pointer of Git LFS, not the image: run `git lfs pull`")
    raise InvalidImage("not a JPEG, PNG or WebP image")


def _open(header: ImageHeader) -> ImageFile:
    """Open the file with the reader of its format.

    `Image.open` would also refuse, or warn of, sizes that `max_pixels` allows.
    """
    file = io.BytesIO(header.content)
    if header.content.startswith(PNG_SIGNATURE):
        return PngImageFile(file)
    if header.content.startswith(JPEG_SIGNATURE):
        return JpegImageFile(file)
    return WebPImageFile(file)


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


def _may_lack_rows(image: ImageFile) -> bool:
    """Return whether rows may be missing. Only then are the pixels decompressed again and counted."""
    if image.info.get("interlace"):
        return True
    last_row = image.crop((0, image.height - 1, image.width, image.height))
    return not np.asarray(last_row).any()


def _without_colour(image: ImageFile, header: ImageHeader) -> Image.Image:
    """Return a PNG with its transparent colour in black. Pillow does not know such a colour at all depths."""
    colour = header.transparent
    if colour is None:
        return image
    pixels = np.asarray(_eight_bit(image).convert("L" if header.channels == 1 else "RGB")).copy()
    if header.depth < 8:
        colour = tuple(sample * 255 // ((1 << header.depth) - 1) for sample in colour)
    if header.depth < 16:
        samples = pixels
    elif header.channels == 1:
        samples = np.asarray(image)
    else:
        # Pillow decodes the upper bytes. Read as little-endian, the lower ones are in their place.
        with _open(header) as lower:
            lower.tile = [tile._replace(args="RGB;16L") for tile in lower.tile]
            lower.load()
            samples = pixels.astype(np.uint16) << 8 | np.asarray(lower)
    equal = samples == np.array(colour, samples.dtype)
    pixels[equal.all(axis=-1) if header.channels == 3 else equal] = 0
    return Image.fromarray(pixels)


def resize_pixels(array: NDArray[np.uint8], *, shape: ImageShape, resize: Resize) -> NDArray[np.uint8]:
    """Bring one image array to the model's shape.

    Args:
        array: uint8, (height, width) or (height, width, 1 or 3).
        shape: The model's image shape.
        resize: The rule for images of another size.

    Returns:
        uint8 array of shape (height, width, channels); `array` itself if it has that shape.
    """
    if array.shape == shape.as_tuple:
        return array
    flat = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    return _to_array(Image.fromarray(flat), shape=shape, resize=resize)


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def _pillow_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 if it is absent or unreadable."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - metadata may hold anything; an image with damaged EXIF is still an image
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _to_array(image: Image.Image, *, shape: ImageShape, resize: Resize) -> NDArray[np.uint8]:
    image = _eight_bit(image)
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        black = Image.new("RGB", image.size)
        black.paste(image, mask=image.getchannel("A"))
        image = black
    image = image.convert("L" if shape.channels == 1 else "RGB")
    target = (shape.width, shape.height)
    if image.size != target:
        method = _FILTERS[resize.filter]
        if resize.mode == "crop":
            image = ImageOps.fit(image, target, method=method)
        else:
            image = image.resize(target, resample=method)
    return np.asarray(image, dtype=np.uint8).reshape(shape.as_tuple)


def _eight_bit(image: Image.Image) -> Image.Image:
    """Scale images with more than 8 bits per channel to 8 bits. Pillow's own conversion would clip them."""
    if image.mode.startswith("I"):
        wide = np.asarray(image)
        narrow = np.empty(wide.shape, np.uint8)
        # In blocks of rows, because the arithmetic needs eight times the memory of its result.
        for top in range(0, len(wide), _BLOCK_ROWS):
            block = wide[top : top + _BLOCK_ROWS].astype(np.int64).clip(0, 65535)
            narrow[top : top + _BLOCK_ROWS] = (block + 128) // 257
        return Image.fromarray(narrow)
    if image.mode == "F":
        raise InvalidImage("floating-point pixels: convert the image to 8 bits per channel")
    return image
