"""Pictures that the command line writes, without a server."""

import io

import numpy as np
import pytest
from PIL import Image

from convvae.errors import InvalidInput
from convvae.pictures import MAX_GRID_IMAGES, encode_png, grid


def test_grid_shows_every_image_once() -> None:
    """Images are arranged in rows on white, and the second band is below the first."""
    plain = np.stack([np.full((64, 64, 1), value, np.uint8) for value in (10, 20, 30)])
    picture = grid(plain)
    assert picture.shape == (2 * 66 + 2, 2 * 66 + 2, 1)
    assert [picture[30, 30, 0], picture[30, 100, 0], picture[100, 30, 0], picture[100, 100, 0]] == [
        10,
        20,
        30,
        255,
    ]
    pairs = grid(plain, plain + 1)
    assert pairs[30, :, 0].tolist().count(10) == 64
    assert pairs[100, 30, 0] == 11


def test_small_images_are_enlarged_and_too_many_refused() -> None:
    """A grid of 8x8 images can be seen; a grid of a million images is refused."""
    assert grid(np.zeros((1, 8, 8, 3), np.uint8)).shape == (68, 68, 3)
    with pytest.raises(InvalidInput, match="a grid shows up to 4096 images"):
        grid(np.zeros((MAX_GRID_IMAGES + 1, 8, 8, 1), np.uint8))


def test_png_keeps_colours() -> None:
    """Three channels are written as RGB."""
    image = np.arange(4 * 3 * 3, dtype=np.uint8).reshape(4, 3, 3)
    with Image.open(io.BytesIO(encode_png(image))) as stored:
        assert np.array_equal(np.asarray(stored), image)
