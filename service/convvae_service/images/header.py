"""The facts about an image file that are known before its pixels are decoded."""

from typing import NamedTuple

__all__ = ["TINY_PIXELS", "ImageHeader", "InvalidImage", "LargeFile", "TooManyPixels"]

# A picture of so many pixels is decoded at once, whatever its format, and its memory is not counted.
TINY_PIXELS = 16_384


class InvalidImage(ValueError):
    """The bytes are not an image that the model can take. The message says why."""


class TooManyPixels(InvalidImage):
    """The image is larger than the limit that the caller has set."""


class LargeFile(Exception):
    """A file that was not decoded, because it takes long or needs much memory.

    Attributes:
        num_bytes: The bytes that decoding holds at its peak, with those of the file.
    """

    def __init__(self, num_bytes: int) -> None:
        self.num_bytes = num_bytes
        super().__init__(num_bytes)


class ImageHeader(NamedTuple):
    """An image file and the facts about it.

    Attributes:
        width: Pixels of a stored row.
        height: Number of stored rows.
        channels: 1 for grey files, otherwise 3.
        orientation: The EXIF orientation, 1 to 8; 1 if it is absent or unreadable.
        content: The image file. A PNG is without metadata, since Pillow refuses some files for metadata that
            it cannot read.
        held_bytes: Bytes that decoding holds at its peak, without the file's own and those of resizing.
        transparent: The samples of the colour that a PNG declares transparent, or None.
        depth: Bits of a sample.
        has_black_ink: Whether a JPEG has four inks: CMYK or YCCK.
    """

    width: int
    height: int
    channels: int
    orientation: int
    content: bytes
    held_bytes: int
    transparent: tuple[int, ...] | None = None
    depth: int = 8
    has_black_ink: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the picture as it is seen, after the orientation."""
        sides = (self.width, self.height) if self.is_sideways else (self.height, self.width)
        return (*sides, self.channels)

    @property
    def is_sideways(self) -> bool:
        """Whether the stored rows are the columns of the picture, as in the orientations 5 to 8."""
        return self.orientation >= 5
