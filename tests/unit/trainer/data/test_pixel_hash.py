"""The hash of an image's pixels."""

import time

import numpy as np

from convvae_trainer.data.pixel_hash import pixel_hashes

GOLDEN = ["90cfd9fff5ef50b9", "d2cb3005e105be34"]


def test_the_hash_is_the_same_on_every_machine() -> None:
    """Splits and fingerprints of one machine hold on another, so the values are fixed."""
    images = np.arange(2 * 2 * 3 * 1, dtype=np.uint8).reshape(2, 2, 3, 1)
    assert [f"{value:016x}" for value in pixel_hashes(images)] == GOLDEN


def test_equal_pixels_have_equal_hashes_wherever_they_stand() -> None:
    """Order, copies and the layout in memory change nothing."""
    images = np.random.default_rng(0).integers(256, size=(50, 8, 9, 3), dtype=np.uint8)
    hashes = pixel_hashes(images)
    assert hashes.dtype == np.uint64
    assert len(set(hashes.tolist())) == 50
    np.testing.assert_array_equal(pixel_hashes(images[::-1]), hashes[::-1])
    np.testing.assert_array_equal(pixel_hashes(np.asfortranarray(images)), hashes)
    np.testing.assert_array_equal(pixel_hashes(np.repeat(images, 2, axis=0)), np.repeat(hashes, 2))


def test_the_shape_counts() -> None:
    """The same bytes in another shape are another image."""
    pixels = np.arange(64, dtype=np.uint8)
    shapes = [(1, 8, 8, 1), (1, 4, 16, 1), (1, 16, 4, 1)]
    assert len({int(pixel_hashes(pixels.reshape(shape))[0]) for shape in shapes}) == 3


def test_no_images_have_no_hashes() -> None:
    """An empty part of a data set is allowed."""
    assert pixel_hashes(np.zeros((0, 8, 8, 1), np.uint8)).shape == (0,)


def test_one_pixel_changes_the_hash() -> None:
    """A single step of one pixel is another image."""
    images = np.zeros((2, 28, 28, 1), np.uint8)
    images[1, 27, 27, 0] = 1
    first, second = pixel_hashes(images)
    assert first != second


def test_seventy_thousand_images_take_at_most_a_second() -> None:
    """Measured in processor time, for images of MNIST's size."""
    images = np.random.default_rng(0).integers(256, size=(70_000, 28, 28, 1), dtype=np.uint8)
    start_s = time.process_time()
    hashes = pixel_hashes(images)
    assert time.process_time() - start_s < 1
    assert len(np.unique(hashes)) == 70_000
