"""Images at half their size, where a checkerboard of single pixels vanishes and an edge stays.

N = images, H and W = height and width, C = channels.
"""

import numpy as np
from numpy.typing import NDArray

from convvae_trainer.data.chunking import chunk_size, chunks

__all__ = ["halved"]


def halved(images_NHWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the means of blocks of 2x2 pixels, rounded; a last row or column of odd sides is left out."""
    count, height, width, channels = images_NHWC.shape
    half_NHWC = np.empty((count, height // 2, width // 2, channels), np.uint8)
    for part in chunks(count, chunk_size(height, width, channels)):
        x = images_NHWC[part, : height // 2 * 2, : width // 2 * 2].astype(np.uint16)
        sums = x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]
        half_NHWC[part] = (sums + 2) // 4
    return half_NHWC
