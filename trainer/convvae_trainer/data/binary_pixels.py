"""How near images are to black and white: their pixels' variance beside that of binary pixels.

N = images, H = height, W = width, C = channels.
"""

import numpy as np
from numpy.typing import NDArray

from convvae_trainer.data.chunking import chunk_size, chunks
from convvae_trainer.data.selection import drawn

__all__ = ["NEARLY_BINARY", "binary_share", "is_binary"]

# From this share on, images count as nearly binary. MNIST has 0.84, and 0.78 enlarged to 64x64; digits have
# 0.57, CIFAR-10's photographs 0.26, and black images with a grey part of an eighth 0.47.
NEARLY_BINARY = 0.7
MAX_IMAGES = 1000


def binary_share(images_NHWC: NDArray[np.uint8]) -> float:
    """Return the variance of the pixels, divided by that of binary pixels with the same mean.

    It is 1 if and only if all values are 0 and 255, and 0 if all are one grey. At most 1,000 images are read.
    """
    images_NHWC = images_NHWC[drawn(len(images_NHWC), MAX_IMAGES)]
    counts = np.zeros(256, np.int64)
    for part in chunks(len(images_NHWC), chunk_size(*images_NHWC.shape[1:], base=0)):
        counts += np.bincount(images_NHWC[part].ravel(), minlength=256)
    level = np.arange(256) / 255
    share = counts / counts.sum()
    mean = float(share @ level)
    largest = mean * (1 - mean)
    # Images that are all black or all white are binary.
    return float(share @ np.square(level) - mean**2) / largest if largest > 0 else 1.0


def is_binary(images: NDArray[np.uint8]) -> bool:
    """Return whether all values are 0 and 255; the images have any shape."""
    return bool(((images == 0) | (images == 255)).all())
