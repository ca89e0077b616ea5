"""The test images of a comparison, and those that the report shows."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from convvae_trainer.compare.sample import draw_sample
from convvae_trainer.data.dataset import Dataset


def sorted_by_class(dataset: Dataset, classes: int) -> Dataset:
    """Return as many test images of each of the classes, one class after the other."""
    labels = np.repeat(np.arange(classes, dtype=np.int64), 6)
    test = np.broadcast_to(labels[:, None, None, None], (len(labels), *dataset.test.shape[1:])).astype(
        np.uint8
    )
    return dataclasses.replace(dataset, test=test, test_labels=labels)


def test_images_are_drawn_from_the_whole_test_set(published_pair: tuple[Path, Dataset]) -> None:
    """The sample of a set that is sorted by class has images of all classes, with their labels."""
    dataset = sorted_by_class(published_pair[1], 10)
    sample = draw_sample(dataset, limit=30, columns=10, seed=1)
    assert sample.labels is not None
    assert len(np.unique(sample.rows)) == 30
    assert sample.rows.max() > 50
    np.testing.assert_array_equal(sample.images, dataset.test[sample.rows])
    np.testing.assert_array_equal(sample.images[:, 0, 0, 0], sample.labels)
    assert len(np.unique(sample.labels)) == 10
    whole = draw_sample(dataset, limit=60, columns=10, seed=1)
    assert whole.images is dataset.test


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_shown_images_cover_the_classes(published_pair: tuple[Path, Dataset], seed: int) -> None:
    """One of each class, then a second one; with fewer columns than classes, no class twice."""
    dataset = sorted_by_class(published_pair[1], 4)
    for columns, counts in ((3, [1, 1, 1]), (4, [1] * 4), (8, [2] * 4), (9, [2, 2, 2, 3]), (24, [6] * 4)):
        sample = draw_sample(dataset, limit=100, columns=columns, seed=seed)
        shown = sample.images[sample.shown][:, 0, 0, 0]
        assert sorted(np.unique(shown, return_counts=True)[1].tolist()) == counts


def test_shown_images_are_drawn_by_the_seed(published_pair: tuple[Path, Dataset]) -> None:
    """A seed draws different images, the same each time; no more are shown than there are."""
    _, dataset = published_pair
    assert draw_sample(dataset, limit=5, columns=8, seed=0).shown.tolist() == [0, 1, 2, 3, 4]
    drawn = [draw_sample(dataset, limit=100, columns=3, seed=seed).shown.tolist() for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(set(drawn[0])) == 3
