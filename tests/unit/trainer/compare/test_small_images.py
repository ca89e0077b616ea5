"""Images reduced in size."""

import numpy as np

from convvae_trainer.compare.half_size import halved
from convvae_trainer.compare.small_images import small_images


def test_large_images_are_reduced() -> None:
    """A side of 32 at most, none below 8, in the images' own proportions."""
    images = np.full((2, 128, 256, 3), 9, np.uint8)
    small = small_images(images)
    assert small.shape == (2, 16, 32, 3)
    assert (small == 9).all()
    assert small_images(np.zeros((1, 8, 256, 1), np.uint8)).shape == (1, 8, 32, 1)
    assert small_images(images[:, :20, :31]).shape == (2, 20, 31, 3)


def test_half_the_size_is_the_mean_of_blocks() -> None:
    """A checkerboard of single pixels becomes grey, an edge between blocks stays; odd sides lose a line."""
    board = ((np.indices((6, 8)).sum(0) % 2) * 200).astype(np.uint8)[None, :, :, None]
    assert (halved(board) == 100).all()
    edge = np.repeat(np.array([0, 0, 255, 255], np.uint8), 6).reshape(1, 4, 6, 1)
    assert halved(edge)[0, :, 0, 0].tolist() == [0, 255]
    assert halved(np.zeros((700, 9, 7, 3), np.uint8)).shape == (700, 4, 3, 3)
