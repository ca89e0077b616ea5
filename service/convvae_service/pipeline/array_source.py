"""Images that lie in one array, most often a file mapped into memory.

Dimensions: N = all rows, B = rows of a batch, H, W, C = height, width and channels of an image.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from convvae_service.pipeline.errors import BadSource
from convvae_service.pipeline.sources import Batch, ModelInput

__all__ = ["ArraySource"]


class ArraySource:
    """An array as a source; the id of a row is its index.

    Args:
        name: What messages call it.
        array: (N, H, W) or (N, H, W, C) with C 1 or 3; uint8, bool, or floating-point within 0 to 1.

    Raises:
        BadSource: Another shape or type, or no rows.
    """

    def __init__(self, name: str, array: NDArray[Any]) -> None:
        # A plain view: every slice of a memmap object pays for its bookkeeping.
        array_NHWC = np.asarray(array)
        if array_NHWC.ndim == 3:
            array_NHWC = array_NHWC[..., None]
        if array_NHWC.ndim != 4 or array_NHWC.shape[3] not in (1, 3):
            raise BadSource(
                f"{name} has the shape {array.shape}: images are (N, H, W) or (N, H, W, C) with C 1 or 3"
            )
        if 0 in array_NHWC.shape:
            raise BadSource(f"{name} holds no images: its shape is {array.shape}")
        if array.dtype not in (np.uint8, np.bool_) and array.dtype.kind != "f":
            raise BadSource(f"{name} is of type {array.dtype}: images are uint8, or floats within 0 to 1")
        self.name = name
        self._array_NHWC = array_NHWC

    def __len__(self) -> int:
        return len(self._array_NHWC)

    def check(self, model_input: ModelInput) -> None:
        """Refuse images of another shape than the model's: nothing says how they should be resized."""
        height, width, channels = self._array_NHWC.shape[1:]
        if (height, width, channels) != model_input.shape.as_tuple:
            raise BadSource(
                f"{self.name} holds images of {height}x{width}x{channels}, model {model_input.model!r} takes"
                f" {model_input.shape}: resize the array, or give a folder of image files"
            )

    def read(self, rows: range, model_input: ModelInput) -> Batch:
        """Return these rows as uint8; see `Source`."""
        del model_input
        images = self._array_NHWC[rows.start : rows.stop]
        return Batch(ids=[str(row) for row in rows], images=self._to_uint8(images, rows.start))

    def _to_uint8(self, images_BHWC: NDArray[Any], first: int) -> NDArray[np.uint8]:
        if images_BHWC.dtype == np.uint8:
            return np.ascontiguousarray(images_BHWC)
        if images_BHWC.dtype == np.bool_:
            return images_BHWC.astype(np.uint8) * np.uint8(255)
        # Not the other way round: NaN is within no range.
        inside = ((images_BHWC >= 0) & (images_BHWC <= 1)).all(axis=(1, 2, 3))
        if not inside.all():
            row = int(np.argmin(inside))
            raise BadSource(
                f"{self.name}[{row + first}] holds values outside 0 to 1:"
                " images are uint8, or floats within 0 to 1"
            )
        scaled: NDArray[np.uint8] = np.rint(images_BHWC * 255).astype(np.uint8)
        return scaled
