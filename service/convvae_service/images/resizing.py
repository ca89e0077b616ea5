"""Pictures brought to the model's channels and size, by the rule of its manifest."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convvae_service.bundle import ImageShape, Resize
from convvae_service.images.header import ImageHeader
from convvae_service.images.orientation import UPRIGHT
from convvae_service.images.picture import Picture, picture_of_array
from convvae_service.images.upright import STRIP_BYTES, turned, upright

__all__ = ["decoding_scale", "fit_picture", "resize_pixels", "resizing_bytes"]

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
# The widest filter, lanczos, has six weights of eight bytes for each pixel of a row and of a column.
_WEIGHT_BYTES = 48
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
    picture: Picture, header: ImageHeader, *, shape: ImageShape, resize: Resize, scale: int = 1
) -> NDArray[np.uint8]:
    """Turn a decoded picture upright, convert it to the model's channels, and resize it.

    Args:
        picture: The decoded picture.
        header: Its size and orientation in the file.
        shape: The model's image shape.
        resize: The rule for pictures of another size.
        scale: The number by which the decoder has divided height and width, from `decoding_scale`.

    Returns:
        uint8 array of shape (height, width, channels), 0 to 255.

    Raises:
        InvalidImage: The pixels are floating-point numbers.
    """
    target = (shape.width, shape.height)
    if scale == 1:
        image = upright(picture, shape.channels, header.orientation)
        image = _resized(image, image.size, target, resize)
    else:
        # The last pixel of a row or column may lie in part outside the picture. It must be cut off before a
        # turn moves it.
        stored = target[::-1] if header.is_sideways else target
        extent = (header.width / scale, header.height / scale)
        image = upright(picture, shape.channels, UPRIGHT)
        image = turned(_resized(image, extent, stored, resize), header.orientation)
    return np.frombuffer(image.tobytes(), np.uint8).reshape(shape.as_tuple)


def resizing_bytes(header: ImageHeader, *, shape: ImageShape) -> int:
    """Return the bytes that `fit_picture` holds at its peak, beside the decoded picture and its copy."""
    height, width, _ = header.shape
    between_passes = 4 * max(shape.width * height, width * shape.height)
    return between_passes + _WEIGHT_BYTES * (width + height) + min(STRIP_BYTES, 16 * width * height)


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
    image = upright(picture_of_array(array), shape.channels, UPRIGHT)
    image = _resized(image, image.size, (shape.width, shape.height), resize)
    return np.frombuffer(image.tobytes(), np.uint8).reshape(shape.as_tuple)


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
