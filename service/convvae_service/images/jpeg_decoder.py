"""Pixels of JPEG files by simplejpeg, if it is installed.

simplejpeg and Pillow both use libjpeg-turbo, with its exact transform and its smooth upsampling, so their
pixels are equal. simplejpeg spends no time on a Python object for each file.
"""

from math import prod

import numpy as np
from numpy.typing import NDArray

from convvae_service.images.header import TINY_PIXELS, ImageHeader, InvalidImage

try:
    import simplejpeg
except ImportError:  # Pillow reads all files
    simplejpeg = None

__all__ = ["jpeg_pixels"]

_CHANNELS = {"GRAY": 1, "RGB": 3, "RGBX": 4}
# Faults in the middle of a picture that libjpeg reports and passes over. The picture is then complete.
_WARNINGS = ("Corrupt JPEG data", "Inconsistent progression", "Invalid SOS parameters for sequential")


def jpeg_pixels(header: ImageHeader, *, channels: int, scale: int = 1) -> NDArray[np.uint8] | None:
    """Decode a JPEG file, or return None if Pillow must decode it.

    Args:
        header: The header of a JPEG file.
        channels: 1 or 3, the channels of the model. A picture in colour keeps its colours for both.
        scale: 1, 2, 4 or 8: the decoder divides both sides by it, and rounds up.

    Returns:
        uint8 (height, width, 1 for grey, 3 for RGB, or 4 for RGB and a byte without a meaning), before the
        orientation is applied.

    Raises:
        InvalidImage: The pixels are damaged, or end early.
    """
    if simplejpeg is None or header.has_black_ink:
        return None
    height, width = -(-header.height // scale), -(-header.width // scale)
    is_tiny = height * width <= TINY_PIXELS
    colours = _colours(channels, header.channels, is_tiny=is_tiny)
    shape = (height, width, _CHANNELS[colours])
    buffer = _tiny_buffer(prod(shape)) if is_tiny else np.zeros(shape, np.uint8)
    try:
        pixels = simplejpeg.decode_jpeg(
            header.content, colorspace=colours, min_height=height, min_width=width, buffer=buffer
        )
    except ValueError as error:
        if not _is_understood(header):
            return None
        if "premature end" in str(error).lower():
            raise InvalidImage("image file is cut short") from None
        if str(error).startswith(_WARNINGS):
            return np.frombuffer(buffer, np.uint8).reshape(shape)
        raise InvalidImage("damaged image") from None
    return pixels if pixels.shape == shape else None


def _colours(model_channels: int, file_channels: int, *, is_tiny: bool) -> str:
    """Return simplejpeg's name of the channels that are decoded."""
    if file_channels == model_channels == 1:
        return "GRAY"
    # Pillow makes four bytes a pixel grey without a copy. A large picture would take more memory.
    return "RGBX" if model_channels == 1 and is_tiny else "RGB"


def _tiny_buffer(num_bytes: int) -> memoryview:
    """Return memory that does not begin at a multiple of 32.

    There, libjpeg-turbo writes past the caches, and a tiny picture takes half as long again.
    """
    return memoryview(bytearray(num_bytes + 1))[1:]


def _is_understood(header: ImageHeader) -> bool:
    """Return whether simplejpeg reads this header. It refuses odd metadata, and rare kinds of subsampling."""
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(header.content)
    except ValueError:
        return False
    return bool((height, width) == (header.height, header.width))
