"""The facts about an image file that are known before its pixels are decoded."""

from dataclasses import dataclass

__all__ = ["ImageHeader", "InvalidImage", "TooManyPixels"]


class InvalidImage(ValueError):
    """The bytes are not an image that the model can take. The message says why."""


class TooManyPixels(InvalidImage):
    """The image is larger than the limit that the caller has set."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageHeader:
    """An image file without its metadata.

    Attributes:
        width: Pixels of a stored row.
        height: Number of stored rows.
        channels: 1 for grey files, otherwise 3.
        orientation: The EXIF orientation, 1 to 8; 1 if it is absent or unreadable.
        content: The same image as a file that has nothing but its pixels. Pillow refuses some files for
            metadata that it cannot read, so it does not see the metadata.
        transparent: The samples of the colour that a PNG declares transparent, or None.
        depth: Bits of a sample.
    """

    width: int
    height: int
    channels: int
    orientation: int
    content: bytes
    transparent: tuple[int, ...] | None = None
    depth: int = 8

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the picture as it is seen, after the orientation."""
        # The orientations 5 to 8 swap height and width.
        sides = (self.width, self.height) if self.orientation >= 5 else (self.height, self.width)
        return (*sides, self.channels)
