"""A decoded picture as it is seen, in grey or RGB."""

from PIL import Image

from convvae_service.images.channels import converted
from convvae_service.images.orientation import UPRIGHT
from convvae_service.images.picture import Box, Picture

__all__ = ["STRIP_BYTES", "turned", "upright"]

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Orientations whose first row is the last stored row or column.
_FROM_THE_END = frozenset({3, 4, 7, 8})
# Larger pictures are converted and turned in strips of about so many pixels.
_STRIP_PIXELS = 1 << 20
# A strip is cut out, converted, blended and turned: up to four copies of four bytes.
STRIP_BYTES = 16 * _STRIP_PIXELS


def upright(picture: Picture, channels: int, orientation: int) -> Image.Image:
    """Return a picture after its orientation is applied.

    A large picture is made strip by strip, so that it needs no third copy of its pixels.

    Args:
        picture: The stored pixels.
        channels: 1 for grey or 3 for RGB.
        orientation: The EXIF orientation, 1 to 8.

    Raises:
        InvalidImage: The pixels are floating-point numbers.
    """
    mode = "L" if channels == 1 else "RGB"
    if picture.mode == mode and orientation == UPRIGHT:
        return picture.whole()
    if picture.width * picture.height <= _STRIP_PIXELS:
        return turned(converted(picture.whole(), channels), orientation)
    is_sideways = orientation >= 5
    width, height = (picture.width, picture.height)[:: -1 if is_sideways else 1]
    image = Image.new(mode, (width, height))
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        first, last = (height - bottom, height - top) if orientation in _FROM_THE_END else (top, bottom)
        box: Box = (first, 0, last, picture.height) if is_sideways else (0, first, picture.width, last)
        image.paste(turned(converted(picture.part(box), channels), orientation), (0, top))
    return image


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """Return a stored picture upright, by its EXIF orientation."""
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)
