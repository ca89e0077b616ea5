"""The sent images as pixels, for a grid that shows them above the results."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convvae.pictures import pillow
from convvae.results import ModelInfo

__all__ = ["read_for_grid"]


def read_for_grid(images: NDArray[Any] | Sequence[Path], info: ModelInfo) -> NDArray[np.uint8]:
    """Return the sent images at the model's size, for a grid. The server's own resizing may differ."""
    if isinstance(images, np.ndarray):
        return images.reshape(len(images), *info.image_shape)
    image_module, ops = pillow()
    shown = np.empty((len(images), *info.image_shape), np.uint8)
    for row, path in enumerate(images):
        with image_module.open(path) as image:
            upright = ops.exif_transpose(image).convert("L" if info.channels == 1 else "RGB")
            fitted = ops.fit(upright, (info.width, info.height))
        shown[row] = np.asarray(fitted).reshape(info.image_shape)
    return shown
