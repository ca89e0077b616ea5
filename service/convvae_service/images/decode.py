"""Image files decoded to the model's pixels: uint8, height x width x channels.

Training and serving use the same functions, so a file from a client is treated like a training file.
"""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL import WebPImagePlugin as _  # noqa: F401 - otherwise the first WebP file loads all plugins of Pillow

from convvae_service.bundle import ImageShape, Resize

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "FORMATS",
    "InvalidImage",
    "decode_file",
    "file_shape",
    "pillow_pixels",
    "pillow_shape",
    "resize_pixels",
]

FORMATS = ("JPEG", "PNG", "WEBP")
DEFAULT_MAX_PIXELS = 32_000_000

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


class InvalidImage(ValueError):
    """The bytes are not an image that the model can take. The message says why."""


def decode_file(
    data: bytes, *, shape: ImageShape, resize: Resize, max_pixels: int = DEFAULT_MAX_PIXELS
) -> NDArray[np.uint8]:
    """Decode an image file and bring it to the model's shape.

    The EXIF orientation is applied, alpha is blended over black, 16-bit values are scaled to 8 bits, and the
    image is converted to grey or RGB according to `shape.channels`. An animation gives its first frame.

    Args:
        data: A JPEG, PNG or WebP file.
        shape: The model's image shape.
        resize: The rule for images of another size.
        max_pixels: Largest width x height accepted, checked before decoding.

    Returns:
        uint8 array of shape (height, width, channels), 0 to 255.

    Raises:
        InvalidImage: `data` is not a readable image, or is too large.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise InvalidImage(
                    f"{image.width}x{image.height} is more than the limit of {max_pixels} pixels"
                )
            return pillow_pixels(image, shape=shape, resize=resize)
    except UnidentifiedImageError:
        raise InvalidImage("not a JPEG, PNG or WebP image") from None
    except Image.DecompressionBombError:
        raise InvalidImage(f"more than the limit of {max_pixels} pixels") from None
    except InvalidImage:
        raise
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - Pillow's parsers raise many kinds of errors
        raise InvalidImage("damaged or truncated image") from None


def pillow_pixels(image: Image.Image, *, shape: ImageShape, resize: Resize) -> NDArray[np.uint8]:
    """Bring an image that Pillow has opened to the model's shape, by the rules of `decode_file`.

    Raises:
        InvalidImage: The image cannot be decoded, or has floating-point pixels.
    """
    try:
        image.load()
        return _to_array(_upright(image), shape=shape, resize=resize)
    except (InvalidImage, MemoryError):
        raise
    except Exception:  # noqa: BLE001 - as in decode_file
        raise InvalidImage("damaged or truncated image") from None


def file_shape(data: bytes) -> tuple[int, int, int]:
    """Return (height, width, channels) of an image file without decoding its pixels.

    Height and width are those after the EXIF orientation. Channels are 1 for grey files, otherwise 3.

    Raises:
        InvalidImage: `data` is not an image.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return pillow_shape(image)
    except UnidentifiedImageError:
        raise InvalidImage("not a JPEG, PNG or WebP image") from None
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - as in decode_file
        raise InvalidImage("damaged or truncated image") from None


def pillow_shape(image: Image.Image) -> tuple[int, int, int]:
    """Return (height, width, channels) of an image that Pillow has opened, by the rules of `file_shape`."""
    width, height = image.size
    # The orientations 5 to 8 swap height and width.
    if _orientation(image) >= 5:
        height, width = width, height
    return height, width, 1 if image.mode in _GREY_MODES else 3


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


def _upright(image: Image.Image) -> Image.Image:
    turn = _TURNS.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
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
