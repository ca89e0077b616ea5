"""Pictures of any mode brought to grey or RGB of 8 bits."""

import numpy as np
from PIL import Image

from convvae_service.images.header import InvalidImage

__all__ = ["converted", "eight_bit"]

_BLOCK_ROWS = 64
# Modes of 8 bits without an alpha.
_OPAQUE_MODES = frozenset({"L", "RGB", "RGBX"})


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


def converted(image: Image.Image, channels: int) -> Image.Image:
    """Return a picture in grey or RGB, by the number of channels. What is transparent is blended over black.

    Raises:
        InvalidImage: The pixels are floating-point numbers.
    """
    mode = "L" if channels == 1 else "RGB"
    if image.mode in _OPAQUE_MODES and "transparency" not in image.info:
        return image if image.mode == mode else image.convert(mode)  # Pillow would copy it
    image = eight_bit(image)
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        black = Image.new("RGB", image.size)
        black.paste(image, mask=image.getchannel("A"))
        image = black
    return image if image.mode == mode else image.convert(mode)
