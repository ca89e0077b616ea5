"""How near images are to black and white."""

import numpy as np
import pytest

from convvae_trainer.data.binary_pixels import MAX_IMAGES, NEARLY_BINARY, binary_share, is_binary
from convvae_trainer.data.dataset import load_dataset
from convvae_trainer.settings.config import Config

RANDOM = np.random.default_rng(0)
BINARY = RANDOM.integers(2, size=(30, 8, 9, 3), dtype=np.uint8) * 255


def test_binary_images_have_all_of_the_variance() -> None:
    """The share is 1, also of images that are all black or all white; one grey has none."""
    assert binary_share(BINARY) == pytest.approx(1)
    assert is_binary(BINARY)
    for level, share in ((0, 1.0), (255, 1.0), (99, 0.0)):
        assert binary_share(np.full((3, 8, 8, 1), level, np.uint8)) == pytest.approx(share, abs=1e-9)
    one_grey_pixel = BINARY.copy()
    one_grey_pixel[5, 5, 5, 1] = 254
    assert not is_binary(one_grey_pixel)


def test_soft_edges_are_nearly_binary_and_grey_levels_are_not() -> None:
    """A tenth of grey pixels leaves strokes nearly binary; digits, noise and dark pictures are grey."""
    strokes = np.where(RANDOM.random((50, 28, 28, 1)) < 0.1, RANDOM.integers(256, size=(50, 28, 28, 1)), 0)
    strokes[:, 10:14] = 255
    assert binary_share(strokes.astype(np.uint8)) > NEARLY_BINARY
    digits = load_dataset(Config(dataset="digits")).train
    assert binary_share(digits) == pytest.approx(0.57, abs=0.01)
    assert binary_share(RANDOM.integers(256, size=(50, 8, 8, 3), dtype=np.uint8)) < 0.5
    # Most pixels are black, and none is white.
    dark = np.zeros((50, 28, 28, 1), np.uint8)
    dark[:, :10, :10] = 128
    assert binary_share(dark) < NEARLY_BINARY


def test_few_of_many_images_are_read() -> None:
    """The time does not grow with the data set, and the answer is the same each time."""
    many = np.concatenate([BINARY[:, :, :, :1]] * 100)
    assert len(many) > MAX_IMAGES
    assert binary_share(many) == binary_share(many) == pytest.approx(1)
