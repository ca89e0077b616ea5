"""Pictures of the model's input, as small PNG files."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["thumbnails"]

# Thumbnails are small, so speed matters more than the last bytes.
_COMPRESSION = 1


def thumbnails(images_BHWC: NDArray[np.uint8]) -> list[bytes]:
    """Return one PNG file for each image, in grey or RGB."""
    files = []
    for image_HWC in images_BHWC:
        stream = io.BytesIO()
        picture = Image.fromarray(image_HWC[..., 0] if image_HWC.shape[2] == 1 else image_HWC)
        picture.save(stream, "PNG", compress_level=_COMPRESSION)
        files.append(stream.getvalue())
    return files
