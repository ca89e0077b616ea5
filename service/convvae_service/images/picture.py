"""A decoded picture that is read in parts, so that a conversion needs no second picture of its size."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["Box", "Picture", "picture_of_array", "picture_of_image"]

Box = tuple[int, int, int, int]
# Pillow's mode for the last dimensions of an array.
_MODES: dict[tuple[int, ...], str] = {(): "L", (1,): "L", (3,): "RGB", (4,): "RGBX"}


class Picture(NamedTuple):
    """The pixels of a file as the decoder has left them.

    Attributes:
        width: Pixels of a row.
        height: Number of rows.
        mode: Pillow's mode of each part, or "" if a part must be converted.
        part: Returns the pixels in a box of (left, top, right, bottom), in any of Pillow's modes.
    """

    width: int
    height: int
    mode: str
    part: Callable[[Box], Image.Image]

    def whole(self) -> Image.Image:
        """Return all pixels."""
        return self.part((0, 0, self.width, self.height))


def picture_of_image(image: Image.Image) -> Picture:
    """Return an image that Pillow has loaded as a picture."""
    width, height = image.size

    def part(box: Box) -> Image.Image:
        return image if box == (0, 0, width, height) else image.crop(box)

    mode = "" if "transparency" in image.info else image.mode
    return Picture(width, height, mode, part)


def picture_of_array(array: NDArray[np.uint8]) -> Picture:
    """Return an array of shape (height, width) or (height, width, 1, 3 or 4) as a picture.

    Three channels are RGB. A fourth one is passed over.
    """
    height, width = array.shape[:2]
    mode = _MODES[array.shape[2:]]

    def part(box: Box) -> Image.Image:
        left, top, right, bottom = box
        pixels = array if box == (0, 0, width, height) else array[top:bottom, left:right]
        size = (right - left, bottom - top)
        return Image.frombuffer(mode, size, np.ascontiguousarray(pixels), "raw", mode, 0, 1)

    return Picture(width, height, mode, part)
