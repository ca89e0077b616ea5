"""Images reduced in size, for work whose time grows with the number of pixels."""

import numpy as np
from numpy.typing import NDArray

from convvae_service.bundle import ImageShape, Resize
from convvae_service.images import resize_pixels

__all__ = ["MAX_SIDE", "small_images"]

MAX_SIDE = 32
# Networks take no side below this.
MIN_SIDE = 8


def small_images(images_NHWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the images with sides of at most `MAX_SIDE` pixels, in about the same proportions."""
    height, width, channels = images_NHWC.shape[1:]
    largest = max(height, width)
    if largest <= MAX_SIDE:
        return np.ascontiguousarray(images_NHWC)
    sides = [max(MIN_SIDE, round(side * MAX_SIDE / largest)) for side in (height, width)]
    shape = ImageShape(height=sides[0], width=sides[1], channels=channels)
    resize = Resize(mode="stretch", filter="box", library="")
    return np.stack([resize_pixels(image, shape=shape, resize=resize) for image in images_NHWC])
