"""Binary test images: the draws on which runs with `binarize` are evaluated.

B = batch, C = channels, H and W = height and width, N = all images.
"""

import numpy as np
from numpy.typing import NDArray

from convvae_trainer.data.chunking import chunk_size, chunks

__all__ = ["BINARIZE_SEED", "binarize_images", "encoder_input"]

# The seed of the draw, the same in every evaluation.
BINARIZE_SEED = 777


def encoder_input(images_NHWC: NDArray[np.uint8], *, binarize: str) -> NDArray[np.uint8]:
    """Return test images as the encoder receives them: binary if `binarize` is `dynamic`."""
    return binarize_images(images_NHWC) if binarize == "dynamic" else images_NHWC


def binarize_images(images_NHWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return images of 0 and 255, drawn once with the grey levels as probabilities of 255."""
    random = np.random.default_rng(BINARIZE_SEED)
    binary_NHWC = np.empty(images_NHWC.shape, np.uint8)
    # In chunks to bound the memory; the draws are the same as for all images at once.
    height, width, channels = images_NHWC.shape[1:]
    for part in chunks(len(images_NHWC), chunk_size(height, width, channels, base=0)):
        images_BHWC = images_NHWC[part]
        level_BHWC = random.random(images_BHWC.shape, dtype=np.float32)
        binary_NHWC[part] = np.where(level_BHWC * 255 < images_BHWC, 255, 0)
    return binary_NHWC
