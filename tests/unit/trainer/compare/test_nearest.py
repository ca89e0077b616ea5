"""The nearest training images of draws from the prior."""

import numpy as np
import pytest

from convvae_trainer.compare import nearest
from convvae_trainer.compare.nearest import NearestImages


def random_images(seed: int, count: int, side: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 1), dtype=np.uint8)


def test_the_nearest_image_is_found_in_all_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row and distance are those of a plain search, wherever a chunk ends."""
    monkeypatch.setattr(nearest, "CHUNK_ROWS", 7)
    train, draws = random_images(0, 30), random_images(1, 9)
    apart = (draws[:, None].astype(float) - train[None]) / 255
    distance = np.sqrt(np.square(apart).mean(axis=(2, 3, 4)))
    found = NearestImages(train, random_images(2, 5)).of(draws, shown=9)
    np.testing.assert_array_equal(found.nearest, train[distance.argmin(axis=1)])
    assert found.distance == pytest.approx(np.median(distance.min(axis=1)))


def test_copies_are_told_from_new_images() -> None:
    """Copies of training images have no distance, and all are close; new images are as far as test images."""
    train, test = random_images(0, 200), random_images(1, 100)
    search = NearestImages(train, test)
    copies = search.of(train[:50], shown=3)
    assert (copies.distance, copies.close_share, len(copies.images)) == (0, 1, 3)
    np.testing.assert_array_equal(copies.images, copies.nearest)
    new = search.of(random_images(2, 200), shown=3)
    assert new.distance == pytest.approx(new.held_out_distance, rel=0.05)
    assert new.close_share < 0.15


def test_large_images_are_searched_at_a_smaller_size() -> None:
    """The images that are found are the large ones all the same."""
    train = random_images(0, 12, side=64)
    found = NearestImages(train, random_images(1, 3, side=64)).of(train[[5, 2]], shown=2)
    np.testing.assert_array_equal(found.nearest, train[[5, 2]])
