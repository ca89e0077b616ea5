"""Sheets of images as PNG: labelled rows of images, each image enlarged."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from convvae_trainer.compare.canvas import INK, PALE, new_figure, to_png, write_text
from convvae_trainer.compare.image_row import ImageRow
from convvae_trainer.data.image_grid import enlarged, grid

__all__ = ["sheet"]

# Images are enlarged by a whole factor to at least this many pixels, so that all their pixels stay equal in
# size.
TILE_PIXELS = 96
GAP_PIXELS = 6
LINE_PIXELS = 26
CHARACTER_PIXELS = 14


def sheet(rows: Sequence[ImageRow], *, captions: Sequence[str] = ()) -> bytes:
    """Return a PNG with rows of images below each other, enlarged by the same whole factor.

    Args:
        rows: Rows of equally many images of the same shape.
        captions: The text above each column.
    """
    count, height, width, _ = rows[0].images.shape
    scale = math.ceil(TILE_PIXELS / min(height, width))
    tile_height, column_pitch = height * scale, width * scale + GAP_PIXELS
    left = (max(row.text_characters for row in rows) + 2) * CHARACTER_PIXELS
    top = LINE_PIXELS + GAP_PIXELS if captions else GAP_PIXELS
    row_pitch = max(tile_height + GAP_PIXELS, max(row.num_lines for row in rows) * LINE_PIXELS)
    figure = new_figure(left + count * column_pitch, top + len(rows) * row_pitch)
    for column, caption in enumerate(captions):
        x = left + column * column_pitch + width * scale / 2
        write_text(figure, x, top / 2, caption, colour=PALE, size=8, align="center")
    for number, row in enumerate(rows):
        middle = top + number * row_pitch + row_pitch / 2
        _write_label(figure, row, middle=middle)
        _place(figure, _strip(row.images, scale), left=left, middle=middle)
    return to_png(figure)


def _write_label(figure: Figure, row: ImageRow, *, middle: float) -> None:
    y = middle - (row.num_lines - 1) * LINE_PIXELS / 2
    for text in row.label_lines:
        write_text(figure, 4, y, text, colour=INK, size=9)
        y += LINE_PIXELS
    if row.note:
        write_text(figure, 4, y, row.note, colour=PALE, size=8)


def _place(figure: Figure, picture_HWC: NDArray[np.uint8], *, left: float, middle: float) -> None:
    """Put a picture on the figure, pixel by pixel; `middle` is its centre from the top."""
    figure_width, figure_height = figure.get_size_inches() * figure.dpi
    height, width = picture_HWC.shape[:2]
    bottom = figure_height - middle - height / 2
    axes = figure.add_axes(
        (left / figure_width, bottom / figure_height, width / figure_width, height / figure_height)
    )
    axes.imshow(picture_HWC, interpolation="nearest", aspect="auto")
    axes.set_axis_off()


def _strip(images_NHWC: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Return enlarged images side by side with white gaps, as RGB."""
    if images_NHWC.shape[3] == 1:
        images_NHWC = images_NHWC.repeat(3, axis=3)
    tiles = grid(
        np.stack([enlarged(image, scale) for image in images_NHWC]),
        columns=len(images_NHWC),
        gap=GAP_PIXELS,
        ground=255,
    )
    return tiles[GAP_PIXELS:-GAP_PIXELS, GAP_PIXELS:-GAP_PIXELS]
