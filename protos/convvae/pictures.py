"""Images as PNG files: single images, and grids of many."""

import io
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convvae.errors import ConvvaeError, InvalidInput

__all__ = ["MAX_GRID_IMAGES", "check_grid", "encode_png", "grid", "pillow", "shown_count"]

MAX_GRID_IMAGES = 4096
_GAP = 2
# Limits of the pictures of an answer in a notebook, which keeps them in its file.
_MAX_SHOWN_IMAGES = 100
_MAX_SHOWN_PIXELS = 2_000_000
_CELL_PIXELS = 64  # Small images are enlarged to about this size, by an integer factor.


def pillow() -> Any:
    """Return the modules `Image` and `ImageOps` of Pillow.

    Raises:
        ConvvaeError: Pillow is not installed.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise ConvvaeError("writing pictures needs Pillow: pip install Pillow") from None
    return Image, ImageOps


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """Return the bytes of a PNG file with one image, uint8 (H, W, 1 or 3)."""
    image_module, _ = pillow()
    file = io.BytesIO()
    image_module.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, "PNG")
    return file.getvalue()


def check_grid(count: int) -> None:
    """Raise `InvalidInput` if `count` images are too many for one grid."""
    if count > MAX_GRID_IMAGES:
        raise InvalidInput(
            f"a grid shows up to {MAX_GRID_IMAGES} images, not {count}: write a folder or an .npy file"
        )


def shown_count(shape: tuple[int, ...]) -> int:
    """Return how many of images of shape (N, H, W, C) a notebook shows."""
    count, height, width, _ = shape
    return min(count, _MAX_SHOWN_IMAGES, max(1, _MAX_SHOWN_PIXELS // (height * width)))


def grid(*bands: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Arrange images in a grid that is about square. Image i of a band is below image i of the last band.

    Args:
        bands: uint8 arrays of the same shape, (N, H, W, C).

    Returns:
        uint8 array (H', W', C) with a white background.

    Raises:
        InvalidInput: There are too many images for one grid.
    """
    count, height, width, channels = bands[0].shape
    check_grid(count * len(bands))
    scale = max(1, round(_CELL_PIXELS / max(height, width)))
    columns = math.ceil(math.sqrt(count * len(bands)))
    columns = min(count, columns)
    rows = math.ceil(count / columns) * len(bands)
    step_y, step_x = height * scale + _GAP, width * scale + _GAP
    picture = np.full((rows * step_y + _GAP, columns * step_x + _GAP, channels), 255, np.uint8)
    for band, images in enumerate(bands):
        for index, image in enumerate(images):
            y = _GAP + (index // columns * len(bands) + band) * step_y
            x = _GAP + index % columns * step_x
            large = image.repeat(scale, axis=0).repeat(scale, axis=1)
            picture[y : y + height * scale, x : x + width * scale] = large
    return picture
