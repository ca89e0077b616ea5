"""Pictures to decode: noise, and photographs that come with scikit-learn and matplotlib."""

import io
import random
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_image

__all__ = ["PhotographCrops", "jpeg", "noise"]


def jpeg(picture: Image.Image, *, quality: int = 90) -> bytes:
    """Return a picture as a JPEG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def noise(height: int, width: int, channels: int, *, seed: int = 0) -> Image.Image:
    """Return a picture of independent pixels."""
    shape = (height, width) if channels == 1 else (height, width, channels)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8))


class PhotographCrops:
    """Random parts of three photographs of 427x640 to 600x512 pixels, at their own resolution."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        arrays: list[NDArray[np.uint8]] = [load_sample_image(f"{name}.jpg") for name in ("china", "flower")]
        with Image.open(Path(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg")) as portrait:
            self._photographs = [*map(Image.fromarray, arrays), portrait.convert("RGB")]

    def crop(self, side: int) -> Image.Image:
        """Return a square part of a photograph, mirrored or not."""
        photograph = self._random.choice(self._photographs)
        left = self._random.randint(0, photograph.width - side)
        top = self._random.randint(0, photograph.height - side)
        part = photograph.crop((left, top, left + side, top + side))
        return part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self._random.random() < 0.5 else part

    def any_crop(self) -> Image.Image:
        """Return a part of 64 to 427 pixels a side."""
        return self.crop(self._random.randint(64, 427))

    def mosaic(self, side: int, tile: int) -> Image.Image:
        """Return a square picture of parts side by side."""
        picture = Image.new("RGB", (side, side))
        for left in range(0, side, tile):
            for top in range(0, side, tile):
                picture.paste(self.crop(tile), (left, top))
        return picture
