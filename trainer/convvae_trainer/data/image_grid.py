"""Image grids as PNG."""

import io
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["enlarged", "grid", "pairs", "png"]

GAP_PIXELS = 2
GREY = 128
MIN_SIDE_PIXELS = 56


def grid(
    images_NHWC: NDArray[np.uint8], *, columns: int, gap: int = GAP_PIXELS, ground: int = GREY
) -> NDArray[np.uint8]:
    """Return images in rows, uint8 of shape (height, width, channels).

    Args:
        images_NHWC: Images, in the order of the rows.
        columns: Images in a row.
        gap: Pixels between images, and around the grid.
        ground: The grey level of gaps and of places without an image, 0 to 255.
    """
    count, height, width, channels = images_NHWC.shape
    rows = math.ceil(count / columns)
    tiles = np.full(
        (rows * (height + gap) + gap, columns * (width + gap) + gap, channels), ground, dtype=np.uint8
    )
    for number, image in enumerate(images_NHWC):
        top = gap + number // columns * (height + gap)
        left = gap + number % columns * (width + gap)
        tiles[top : top + height, left : left + width] = image
    return tiles


def pairs(upper_NHWC: NDArray[np.uint8], lower_NHWC: NDArray[np.uint8], *, columns: int) -> NDArray[np.uint8]:
    """Return a grid in which each row of `upper` images is followed by a row of their `lower` images."""
    rows = []
    for low in range(0, len(upper_NHWC), columns):
        for images in (upper_NHWC[low : low + columns], lower_NHWC[low : low + columns]):
            missing = columns - len(images)
            blank = np.full((missing, *images.shape[1:]), GREY, dtype=np.uint8)
            rows.append(np.concatenate([images, blank]))
    return grid(np.concatenate(rows), columns=columns)


def enlarged(image_HWC: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Return an image whose pixels are repeated `scale` times in both directions."""
    return image_HWC.repeat(scale, axis=0).repeat(scale, axis=1)


def png(image_HWC: NDArray[np.uint8], *, tile_side: int) -> bytes:
    """Return a PNG, enlarged by a whole factor so that a side of `tile_side` pixels is easy to see."""
    large = enlarged(image_HWC, math.ceil(MIN_SIDE_PIXELS / tile_side))
    buffer = io.BytesIO()
    Image.fromarray(large[..., 0] if large.shape[2] == 1 else large).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
