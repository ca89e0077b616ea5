"""A decoded picture that is read in parts, so that a conversion needs no second picture of its size."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["Box", "Picture", "picture_of_array", "picture_of_image"]

Box = tuple[int, int, int, int]


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
    """Return an array of shape (height, width) or (height, width, 1 or 3) as a picture."""
    pixels = array[..., 0] if array.shape[2:] == (1,) else array

    def part(box: Box) -> Image.Image:
        left, top, right, bottom = box
        return Image.fromarray(pixels[top:bottom, left:right])

    return Picture(pixels.shape[1], pixels.shape[0], "L" if pixels.ndim == 2 else "RGB", part)
