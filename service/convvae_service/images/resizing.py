"""Pictures brought to the model's channels and size, by the rule of its manifest."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convvae_service.bundle import ImageShape, Resize
from convvae_service.images.header import ImageHeader, InvalidImage

__all__ = ["decoding_scale", "eight_bit", "fit_picture", "picture_of", "resize_pixels"]

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BLOCK_ROWS = 64
# A scaled JPEG keeps at least this many times the model's height and width, so that the filter of the rule,
# not the JPEG decoder, decides the pixels.
_LEAST_EXCESS = 2
# A decoder is told the size of the result, and smaller results do not tell one scale from another.
_LEAST_SIDE = 8


def decoding_scale(header: ImageHeader, *, shape: ImageShape, resize: Resize) -> int:
    """Return the number by which a JPEG decoder divides height and width: 8, 4, 2 or 1.

    With the rule `scaled` it is the largest that leaves at least twice the model's height and width, and 8
    pixels. With the rule `full`, and with the filter `nearest`, which takes single pixels, it is 1.
    """
    if resize.decode == "full" or resize.filter == "nearest":
        return 1
    height, width, _ = header.shape
    for scale in (8, 4, 2):
        least_height = scale * max(_LEAST_SIDE, _LEAST_EXCESS * shape.height)
        least_width = scale * max(_LEAST_SIDE, _LEAST_EXCESS * shape.width)
        if height >= least_height and width >= least_width:
            return scale
    return 1


def fit_picture(
    image: Image.Image, header: ImageHeader, *, shape: ImageShape, resize: Resize, scale: int = 1
) -> NDArray[np.uint8]:
    """Turn a decoded picture upright, convert it to the model's channels, and resize it.

    Args:
        image: The picture, of any mode.
        header: Its size and orientation in the file.
        shape: The model's image shape.
        resize: The rule for pictures of another size.
        scale: The number by which the decoder has divided height and width, from `decoding_scale`.

    Returns:
        uint8 array of shape (height, width, channels), 0 to 255.

    Raises:
        InvalidImage: The pixels are floating-point numbers.
    """
    image = _converted(image, shape.channels)
    target = (shape.width, shape.height)
    if scale == 1:
        image = _turned(image, header.orientation)
        image = _resized(image, image.size, target, resize)
    else:
        # The last pixel of a row or column may lie in part outside the picture. It must be cut off before a
        # turn moves it.
        stored = target[::-1] if header.is_sideways else target
        extent = (header.width / scale, header.height / scale)
        image = _turned(_resized(image, extent, stored, resize), header.orientation)
    return np.asarray(image, dtype=np.uint8).reshape(shape.as_tuple)


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
    image = _converted(picture_of(array), shape.channels)
    image = _resized(image, image.size, (shape.width, shape.height), resize)
    return np.asarray(image, dtype=np.uint8).reshape(shape.as_tuple)


def picture_of(array: NDArray[np.uint8]) -> Image.Image:
    """Return an array of shape (height, width) or (height, width, 1 or 3) as a picture."""
    return Image.fromarray(array[..., 0] if array.shape[2:] == (1,) else array)


def eight_bit(image: Image.Image) -> Image.Image:
    """Scale images with more than 8 bits per channel to 8 bits. Pillow's own conversion would clip them.

    Raises:
        InvalidImage: The pixels are floating-point numbers.
    """
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


def _converted(image: Image.Image, channels: int) -> Image.Image:
    """Return a picture in grey or RGB. What is transparent is blended over black."""
    image = eight_bit(image)
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        black = Image.new("RGB", image.size)
        black.paste(image, mask=image.getchannel("A"))
        image = black
    mode = "L" if channels == 1 else "RGB"
    return image if image.mode == mode else image.convert(mode)  # Pillow would copy it


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def _resized(
    image: Image.Image, extent: tuple[float, float], target: tuple[int, int], resize: Resize
) -> Image.Image:
    """Resize the part of an image from its corner to `extent`, or the centre of that part in mode `crop`.

    All sizes are (width, height).
    """
    if image.size == target:
        return image
    width, height = extent
    if resize.mode == "crop":
        ratio = target[0] / target[1]
        if width / height > ratio:
            width = height * ratio
        elif width / height < ratio:
            height = width / ratio
    left, top = (extent[0] - width) / 2, (extent[1] - height) / 2
    return image.resize(target, _FILTERS[resize.filter], (left, top, left + width, top + height))
