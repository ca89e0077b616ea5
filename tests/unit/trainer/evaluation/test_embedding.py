"""The accuracy of classifiers on vectors."""

import sys

import numpy as np
import pytest

from convvae_trainer.errors import MissingExtra
from convvae_trainer.evaluation import embedding
from convvae_trainer.evaluation.embedding import (
    check_installed,
    compare_embeddings,
    embedding_rows,
    vector_accuracy,
)


def blobs(count: int, *, distance: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return points of unit variance around 3 corners so far apart, and labels 2, 5 and 9."""
    labels = np.array([2, 5, 9])[np.arange(count) % 3]
    corners = {2: np.zeros(4), 5: distance * np.eye(4)[0], 9: distance * np.eye(4)[1]}
    points = np.random.default_rng(seed).standard_normal((count, 4)) + [corners[label] for label in labels]
    return points.astype(np.float32), labels


def test_separable_blobs_are_told_apart() -> None:
    """Far apart all are named, in one place no more than a third; the unit of the vectors does not matter."""
    for distance, low, high in ((20.0, 1.0, 1.0), (0.0, 0.15, 0.5)):
        train, train_labels = blobs(120, distance=distance, seed=0)
        test, test_labels = blobs(90, distance=distance, seed=1)
        found = vector_accuracy(train, test, train_labels=train_labels, test_labels=test_labels)
        assert low <= found.knn <= high
        assert low <= found.linear_probe <= high
        scaled = vector_accuracy(
            1000 * train + 7, 1000 * test + 7, train_labels=train_labels, test_labels=test_labels
        )
        assert scaled.knn == pytest.approx(found.knn, abs=0.02)
        assert scaled.linear_probe == pytest.approx(found.linear_probe, abs=0.05)


def test_what_is_not_linear_shows_in_neighbours_alone() -> None:
    """A ring around a disc: neighbours see it, a linear probe cannot."""
    random = np.random.default_rng(0)
    angle = random.uniform(0, 2 * np.pi, 300)
    labels = np.arange(300) % 2
    radius = np.where(labels, 5.0, 1.0)
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    found = vector_accuracy(points[:200], points[200:], train_labels=labels[:200], test_labels=labels[200:])
    assert found.knn == 1.0
    assert found.linear_probe < 0.75


def test_vectors_stand_beside_pixels_and_components() -> None:
    """Vectors that say nothing lose to pixels that do; PCA has the vectors' dimension."""
    labels = np.arange(90) % 2
    random = np.random.default_rng(0)
    images = random.integers(0, 60, (90, 8, 8, 1), dtype=np.uint8)
    images[labels == 1, :4] += 150
    vectors = random.standard_normal((90, 3)).astype(np.float32)
    found = compare_embeddings(
        vectors[:60],
        vectors[60:],
        train_images=images[:60],
        train_labels=labels[:60],
        test_images=images[60:],
        test_labels=labels[60:],
    )
    assert (found.pixels.knn, found.pixels.linear_probe) == (1.0, 1.0)
    assert (found.pca.knn, found.pca.linear_probe) == (1.0, 1.0)
    assert max(found.posterior_means.knn, found.posterior_means.linear_probe) < 0.8
    assert (found.pca_dimension, found.neighbours, found.chance) == (3, 5, 0.5)
    assert (found.train_images, found.test_images) == (60, 30)


def test_no_more_images_than_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """All are taken, or a fixed draw of so many."""
    images = np.zeros((50, 8, 8, 1), np.uint8)
    assert sorted(embedding_rows(images)) == list(range(50))
    monkeypatch.setattr(embedding, "MAX_VALUES", 10 * 64 + 3)
    rows = embedding_rows(images)
    assert len(set(rows)) == 10
    assert sorted(rows) != list(range(10))
    np.testing.assert_array_equal(embedding_rows(images), rows)
    monkeypatch.setattr(embedding, "MAX_IMAGES", 4)
    assert len(embedding_rows(images)) == 4


def test_without_scikit_learn_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says which extra brings it."""
    check_installed()
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingExtra, match=r"scikit-learn is not installed: pip install"):
        check_installed()
