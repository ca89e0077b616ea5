"""Image grids as PNG."""

import io
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["grid", "pairs", "png"]

GAP = 2
MIN_SIDE = 56


def grid(images_NHWC: NDArray[np.uint8], *, columns: int) -> NDArray[np.uint8]:
    """Return images row by row on a grey ground, uint8 of shape (height, width, channels)."""
    count, height, width, channels = images_NHWC.shape
    rows = math.ceil(count / columns)
    ground = np.full(
        (rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, channels), 128, dtype=np.uint8
    )
    for number, image in enumerate(images_NHWC):
        top = GAP + number // columns * (height + GAP)
        left = GAP + number % columns * (width + GAP)
        ground[top : top + height, left : left + width] = image
    return ground


def pairs(upper_NHWC: NDArray[np.uint8], lower_NHWC: NDArray[np.uint8], *, columns: int) -> NDArray[np.uint8]:
    """Return rows of `upper` images, each over a row of their `lower` ones, as `grid` does."""
    rows = []
    for low in range(0, len(upper_NHWC), columns):
        for images in (upper_NHWC[low : low + columns], lower_NHWC[low : low + columns]):
            missing = columns - len(images)
            blank = np.full((missing, *images.shape[1:]), 128, dtype=np.uint8)
            rows.append(np.concatenate([images, blank]))
    return grid(np.concatenate(rows), columns=columns)


def png(image_HWC: NDArray[np.uint8], *, tile_side: int) -> bytes:
    """Return a PNG, enlarged by a whole factor so that tiles of `tile_side` pixels can be looked at."""
    scale = math.ceil(MIN_SIDE / tile_side)
    large = image_HWC.repeat(scale, axis=0).repeat(scale, axis=1)
    buffer = io.BytesIO()
    Image.fromarray(large[..., 0] if large.shape[2] == 1 else large).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
