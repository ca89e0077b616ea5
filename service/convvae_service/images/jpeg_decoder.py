"""Pixels of JPEG files by simplejpeg, if it is installed.

simplejpeg and Pillow both use libjpeg-turbo, with its exact transform and its smooth upsampling, so their
pixels are equal. simplejpeg spends no time on a Python object for each file.
"""

import numpy as np
from numpy.typing import NDArray

from convvae_service.images.header import ImageHeader, InvalidImage

try:
    import simplejpeg
except ImportError:  # Pillow reads all files
    simplejpeg = None

__all__ = ["jpeg_pixels"]

# Faults in the middle of a picture that libjpeg reports and passes over. The picture is then complete.
_WARNINGS = ("Corrupt JPEG data", "Inconsistent progression", "Invalid SOS parameters for sequential")


def jpeg_pixels(header: ImageHeader, *, channels: int, scale: int = 1) -> NDArray[np.uint8] | None:
    """Decode a JPEG file, or return None if Pillow must decode it.

    Args:
        header: The header of a JPEG file.
        channels: 1 or 3, the channels of the model. A picture in colour is RGB for both.
        scale: 1, 2, 4 or 8: the decoder divides both sides by it, and rounds up.

    Returns:
        uint8 (height, width, 1 or 3), before the orientation is applied.

    Raises:
        InvalidImage: The pixels are damaged, or end early.
    """
    if simplejpeg is None or header.has_black_ink:
        return None
    height, width = -(-header.height // scale), -(-header.width // scale)
    channels = max(channels, header.channels)
    pixels = np.zeros((height, width, channels), np.uint8)
    try:
        decoded = simplejpeg.decode_jpeg(
            header.content,
            colorspace="RGB" if channels == 3 else "GRAY",
            min_height=height,
            min_width=width,
            buffer=pixels,
        )
    except ValueError as error:
        if not _is_understood(header):
            return None
        if "premature end" in str(error).lower():
            raise InvalidImage("image file is cut short") from None
        if str(error).startswith(_WARNINGS):
            return pixels
        raise InvalidImage("damaged image") from None
    return pixels if decoded.shape == pixels.shape else None


def _is_understood(header: ImageHeader) -> bool:
    """Return whether simplejpeg reads this header. It refuses odd metadata, and rare kinds of subsampling."""
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(header.content)
    except ValueError:
        return False
    return bool((height, width) == (header.height, header.width))
