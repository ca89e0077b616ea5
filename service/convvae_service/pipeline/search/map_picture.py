"""The map of a result as a picture: points, thumbnails where there is room, and a legend.

Dimensions: N = rows.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from convvae_service.images import printable
from convvae_service.pipeline.search.colours import Colouring

__all__ = ["map_picture"]

SIDE = 1400
# A thumbnail may reach beyond its place by its side.
MARGIN = 60
LEGEND = 280
LINE = 22
THUMBNAIL = 44
# The frame of a thumbnail has its colour.
FRAME = 3
_RADIUS = 3
_PLAIN = "#0072b2"
_INK = "#222222"
_PLAIN_FRAME = "#cccccc"


def map_picture(
    places_N2: NDArray[np.float64],
    colouring: Colouring,
    pictures: Sequence[Image.Image] | None,
    *,
    heading: str,
) -> Image.Image:
    """Return the map on white. Thumbnails cover points, but not each other.

    Args:
        places_N2: Places within 0 to 1, (N, 2).
        colouring: Colours of the rows, and the legend.
        pictures: The picture of each row, or None to draw points alone.
        heading: The line above the map.
    """
    width = SIDE + (LEGEND if colouring.legend else 0)
    # Places fill the unit square in one direction alone.
    from_top_N2 = places_N2 - [0, places_N2[:, 1].min()]
    pixels_N2 = MARGIN + from_top_N2 * (SIDE - 2 * MARGIN)
    pixels_N2[:, 1] += LINE
    height = max(pixels_N2[:, 1].max() + MARGIN, 2 * (LINE + MARGIN) + len(colouring.legend) * LINE)
    canvas = Image.new("RGB", (width, round(height)), "white")
    draw = ImageDraw.Draw(canvas)
    draw.text((MARGIN / 2, 6), printable(heading), fill=_INK, font=ImageFont.load_default(size=14))
    colours = colouring.colours or [_PLAIN] * len(places_N2)
    for (x, y), colour in zip(pixels_N2, colours, strict=True):
        draw.ellipse((x - _RADIUS, y - _RADIUS, x + _RADIUS, y + _RADIUS), fill=colour)
    if pictures is not None:
        frames = colouring.colours or [_PLAIN_FRAME] * len(places_N2)
        _paste_thumbnails(canvas, draw, pixels_N2, frames, pictures)
    font = ImageFont.load_default(size=13)
    for number, (text, colour) in enumerate(colouring.legend):
        top = LINE + MARGIN + number * LINE
        draw.rectangle((SIDE, top + 3, SIDE + 13, top + 16), fill=colour)
        draw.text((SIDE + 20, top), text, fill=_INK, font=font)
    return canvas


def _paste_thumbnails(
    canvas: Image.Image,
    draw: ImageDraw.ImageDraw,
    pixels_N2: NDArray[np.float64],
    frames: Sequence[str],
    pictures: Sequence[Image.Image],
) -> None:
    """Paste the picture of the first row in each cell of a grid, if its neighbours leave room."""
    side = THUMBNAIL + 2 * FRAME
    step = side + 2
    # The first cell has the least place in its centre, so all cells are within the margin.
    corner_2 = pixels_N2.min(axis=0) - side / 2
    taken: set[tuple[int, int]] = set()
    for place_2, frame, picture in zip(pixels_N2, frames, pictures, strict=True):
        column, row = ((place_2 - corner_2) // step).astype(int).tolist()
        if (column, row) in taken:
            continue
        taken.add((column, row))
        left, top = (corner_2 + step * np.array([column, row])).astype(int).tolist()
        draw.rectangle((left, top, left + side - 1, top + side - 1), fill=frame)
        small = picture.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BICUBIC)
        canvas.paste(small, (left + FRAME, top + FRAME))
