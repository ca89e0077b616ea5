"""A source of images in one array, usually a file mapped into memory."""

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from convvae_service.images.arrays import BadArray, as_images, as_uint8, open_array
from convvae_service.images.files import LeftOut
from convvae_service.images.source import BadSource, ImageBatch, ModelInput

__all__ = ["ArraySource", "open_array_source"]


class ArraySource:
    """An array as a source. The id of a row is its index.

    Args:
        name: Name of the array in messages.
        array: (N, H, W) or (N, H, W, C) with C 1 or 3; uint8, bool, or floating-point in 0..1.

    Raises:
        BadSource: The array has another shape or type, or no rows.
    """

    def __init__(self, name: str, array: NDArray[Any]) -> None:
        try:
            self._array_NHWC = as_images(array, name=name)
        except BadArray as error:
            raise BadSource(str(error)) from None
        self.name = name
        self.left_out = LeftOut()

    def __len__(self) -> int:
        return len(self._array_NHWC)

    def check(self, model_input: ModelInput) -> None:
        """Refuse images of another shape than the model's. Arrays are not resized."""
        height, width, channels = self._array_NHWC.shape[1:]
        if (height, width, channels) != model_input.shape.as_tuple:
            raise BadSource(
                f"{self.name} has images of {height}x{width}x{channels}, model {model_input.model!r} takes"
                f" {model_input.shape}: resize the array, or give a folder of image files"
            )

    def read(self, rows: range, model_input: ModelInput) -> ImageBatch:
        """Return these rows as uint8; see `Source`."""
        del model_input
        images = self._array_NHWC[rows.start : rows.stop]
        try:
            pixels = as_uint8(images, name=self.name, first=rows.start)
        except BadArray as error:
            raise BadSource(str(error)) from None
        return ImageBatch(ids=[str(row) for row in rows], images=pixels)


def open_array_source(path: Path) -> ArraySource:
    """Open an .npy, .npz or idx file as a source.

    Raises:
        BadSource: The file is damaged or holds no images.
    """
    try:
        array = open_array(path)
    except BadArray as error:
        raise BadSource(str(error)) from None
    return ArraySource(path.name, array)
