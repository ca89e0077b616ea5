"""An array that is filled picture by picture."""

import math

import numpy as np
from numpy.typing import NDArray

from convvae_service.bundle import ImageShape
from convvae_trainer.data.arrays import check_size
from convvae_trainer.errors import BadData

__all__ = ["ImageStack"]


class ImageStack:
    """An array of images that is filled picture by picture, and becomes RGB at the first one in colour.

    Each picture is decoded once. To read all headers first took a third as long as decoding small JPEG files.

    Args:
        count: Number of pictures.
        image_size: (height, width) of all rows. None: the first picture's, which all others must have.
        channels: Channels of all rows, 1 or 3. None: 1 unless a picture is in colour.
    """

    def __init__(self, count: int, *, image_size: tuple[int, int] | None, channels: int | None) -> None:
        self._count = count
        self._image_size = image_size
        self._channels = channels
        self._first = ""
        self._size = (0, 0)
        self._rows = np.empty((0, 0, 0, 0), np.uint8)
        self._filled = 0
        self._num_grey = 0
        self._next_is_grey = False
        self._next_size = (0, 0)
        # The sizes of the smallest and the largest picture.
        self._smallest = self._largest = (0, 0)

    @property
    def images(self) -> NDArray[np.uint8]:
        """The rows so far, uint8 of shape (N, H, W, C)."""
        return self._rows[: self._filled]

    @property
    def shape(self) -> ImageShape | None:
        """The shape of the rows so far, or None before the first."""
        height, width, channels = self._rows.shape[1:]
        return ImageShape(height=height, width=width, channels=channels) if self._filled else None

    @property
    def note(self) -> str:
        """A sentence on pictures that were read in other colours than they have, or ""."""
        is_grey = self._rows.shape[3] == 1
        number = self._filled - self._num_grey if is_grey else self._num_grey
        if not number:
            return ""
        all_of = f"{number} of {self._filled} pictures" if number < self._filled else f"all {number} pictures"
        return f"{all_of} are in colour, read as grey" if is_grey else f"{all_of} are grey, read as RGB"

    @property
    def sizes(self) -> str:
        """The sizes that the pictures had before they were resized, such as "28x28" or "20x30 to 200x300"."""
        sizes = dict.fromkeys((self._smallest, self._largest))
        return " to ".join(f"{height}x{width}" for height, width in sizes)

    def next_shape(self, picture: tuple[int, int, int], *, name: str) -> ImageShape:
        """Return the shape that the next picture must have when it is added.

        Args:
            picture: (height, width, channels) of the picture.
            name: The picture's name in error messages.

        Raises:
            BadData: Its size differs from the first picture's, or is too small or too large to train at.
        """
        height, width, channels = picture
        if not self._filled:
            self._first, self._size = name, self._image_size or (height, width)
            if self._image_size is None:
                # Before memory is allocated: photographs are too large to train at.
                check_size(height, width, name=name)
            self._rows = np.empty((self._count, *self._size, self._channels or channels), np.uint8)
        elif self._image_size is None and (height, width) != self._size:
            raise BadData(
                f"images have different sizes: {self._first} is {self._size[0]}x{self._size[1]}, {name} is"
                f" {height}x{width}; give --image-size"
            )
        self._next_size = height, width
        self._next_is_grey = channels == 1
        row_channels = self._channels or max(channels, self._rows.shape[3])
        return ImageShape(height=self._size[0], width=self._size[1], channels=row_channels)

    def add(self, image: NDArray[np.uint8]) -> None:
        """Append a picture of the shape that `next_shape` returned."""
        if image.shape[2] > self._rows.shape[3]:
            self._widen()
        self._num_grey += self._next_is_grey
        if not self._filled:
            self._smallest = self._largest = self._next_size
        self._smallest = min(self._smallest, self._next_size, key=math.prod)
        self._largest = max(self._largest, self._next_size, key=math.prod)
        self._rows[self._filled] = image
        self._filled += 1

    def _widen(self) -> None:
        """Turn the rows so far into RGB, with the grey value in each channel."""
        wide = np.empty((*self._rows.shape[:3], 3), np.uint8)
        wide[: self._filled] = self._rows[: self._filled]
        self._rows = wide
