"""Images with their labels, as they are read and split."""

from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from convvae_service.bundle import ImageShape, Resize
from convvae_service.images import resize_pixels

__all__ = ["LabelledImages"]


class LabelledImages(NamedTuple):
    """Images, uint8 of shape (N, H, W, C), and their labels, int64 of shape (N,), or None."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | None

    def take(self, rows: slice | NDArray[np.intp] | NDArray[np.bool_]) -> Self:
        """Return these rows."""
        return type(self)(self.images[rows], None if self.labels is None else self.labels[rows])

    def resized(self, size: tuple[int, int] | None, resize: Resize) -> Self:
        """Return the images with this height and width; None leaves them as they are."""
        if size is None or self.images.shape[1:3] == size:
            return self
        shape = ImageShape(height=size[0], width=size[1], channels=self.images.shape[3])
        images = np.empty((len(self.images), *shape.as_tuple), dtype=np.uint8)
        for row, image in enumerate(self.images):
            images[row] = resize_pixels(image, shape=shape, resize=resize)
        return type(self)(images, self.labels)
