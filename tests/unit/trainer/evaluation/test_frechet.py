"""The classifier whose features measure, and the Fréchet distance in them."""

import math

import numpy as np
import pytest

from convvae_trainer.errors import BadData
from convvae_trainer.evaluation import classifier as classifier_module
from convvae_trainer.evaluation.classifier import (
    NUM_FEATURES,
    ClassifierNetwork,
    check_accuracy,
    default_floor,
    train_classifier,
)
from convvae_trainer.evaluation.frechet import frechet_distance


def with_moments(
    mean: list[float], covariance: list[list[float]], *, count: int = 50, seed: int = 0
) -> np.ndarray:
    """Return rows whose sample mean and covariance are exactly these."""
    rows = np.random.default_rng(seed).standard_normal((count, len(mean)))
    rows -= rows.mean(0)
    whitened = rows @ np.linalg.inv(np.linalg.cholesky(np.cov(rows, rowvar=False))).T
    moved: np.ndarray = whitened @ np.linalg.cholesky(np.array(covariance)).T + np.array(mean)
    return moved


def test_distance_of_two_gaussians_is_the_closed_form() -> None:
    """For commuting covariances it is the sum of squared differences of means and deviations."""
    a = with_moments([1.0, 2.0], [[4.0, 0.0], [0.0, 9.0]])
    b = with_moments([0.0, 4.0], [[1.0, 0.0], [0.0, 16.0]], count=80, seed=1)
    assert frechet_distance(a, b) == pytest.approx(1 + 4 + (2 - 1) ** 2 + (3 - 4) ** 2)
    # A rotation of both changes nothing.
    turn = np.array([[math.cos(0.4), -math.sin(0.4)], [math.sin(0.4), math.cos(0.4)]])
    assert frechet_distance(a @ turn, b @ turn) == pytest.approx(7.0)


def test_distance_of_covariances_that_do_not_commute() -> None:
    """For 2x2 matrices the root's trace is sqrt(tr(AB) + 2 sqrt(det AB))."""
    first, second = np.array([[2.0, 1.0], [1.0, 3.0]]), np.array([[5.0, -2.0], [-2.0, 1.0]])
    a, b = with_moments([0.0, 0.0], first.tolist()), with_moments([0.0, 0.0], second.tolist(), seed=1)
    root = math.sqrt(np.trace(first @ second) + 2 * math.sqrt(np.linalg.det(first @ second)))
    expected = np.trace(first) + np.trace(second) - 2 * root
    assert frechet_distance(a, b) == pytest.approx(expected)
    assert frechet_distance(b, a) == pytest.approx(expected)


def test_singular_covariances_do_no_harm() -> None:
    """Features that never move, or fewer images than features, give a finite distance; to itself it is 0."""
    random = np.random.default_rng(0)
    few = random.standard_normal((5, 64))
    few[:, :40] = 0.0
    assert frechet_distance(few, few) == pytest.approx(0.0, abs=1e-9)
    assert frechet_distance(few, few + 1.0) == pytest.approx(64.0)


@pytest.mark.parametrize(
    ("a", "b"), [((1, 3), (5, 3)), ((5, 3), (5, 4)), ((5,), (5,))], ids=["one row", "features", "a line"]
)
def test_what_has_no_distance_is_refused(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    """One image has no covariance, and features must be the same ones."""
    with pytest.raises(ValueError, match="have no distance"):
        frechet_distance(np.zeros(a), np.zeros(b))


def test_values_that_are_not_finite_are_refused() -> None:
    """A distance of NaN says nothing."""
    with pytest.raises(ValueError, match="not finite"):
        frechet_distance(np.zeros((4, 2)), np.full((4, 2), np.nan))


def striped(count: int, *, shape: tuple[int, int, int] = (8, 10, 1)) -> tuple[np.ndarray, np.ndarray]:
    """Return noisy images with rows or columns lit, and labels 3 and 7 that say which."""
    random = np.random.default_rng(5)
    images = random.integers(0, 80, (count, *shape), dtype=np.uint8)
    labels = np.where(np.arange(count) % 2, 7, 3)
    images[labels == 3, ::2] += 150
    images[labels == 7, :, ::2] += 150
    return images, labels


@pytest.fixture(scope="module")
def classifier() -> ClassifierNetwork:
    """Trained for a few steps on stripes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier_module, "STEPS", 20)
        return train_classifier(*striped(200))


def test_the_classifier_learns(classifier: ClassifierNetwork) -> None:
    """It tells stripes apart, by the labels' own numbers."""
    images, labels = striped(300)
    assert classifier.accuracy(images[200:], labels[200:]) == 1.0
    assert classifier.accuracy(images[200:], labels[200:] + 1) == 0.0


def test_features_tell_images_from_others(classifier: ClassifierNetwork) -> None:
    """Held-out images are nearer than blurred or noisy ones; features do not depend on the batch."""
    images, _ = striped(200)
    features = classifier.features(images)
    assert (features.shape, features.dtype) == ((200, NUM_FEATURES), np.dtype("float64"))
    np.testing.assert_allclose(classifier.features(images[7:9]), features[7:9], atol=1e-4)
    near = frechet_distance(features[:100], features[100:])
    blurred = ((images.astype(int) + np.roll(images, 1, 1) + np.roll(images, 1, 2)) // 3).astype(np.uint8)
    assert near * 5 < frechet_distance(features[:100], classifier.features(blurred[100:]))


def test_the_same_data_give_the_same_classifier(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seed and steps are fixed, and progress ends at 1."""
    monkeypatch.setattr(classifier_module, "STEPS", 3)
    images, labels = striped(40, shape=(8, 80, 3))
    shares: list[float] = []
    first = train_classifier(images, labels, progress=shares.append).features(images)
    assert shares == pytest.approx([1 / 3, 2 / 3, 1])
    np.testing.assert_array_equal(train_classifier(images, labels).features(images), first)


def test_labels_of_one_class_are_refused() -> None:
    """There is nothing to tell apart."""
    images, labels = striped(10)
    with pytest.raises(BadData, match="at least two classes"):
        train_classifier(images, np.zeros_like(labels))


def test_a_poor_classifier_measures_nothing() -> None:
    """Below the floor the error names both figures; the default is half way from guessing to certainty."""
    labels = np.array([0] * 6 + [1] * 4)
    assert default_floor(labels) == pytest.approx(0.8)
    check_accuracy(0.8, labels)
    check_accuracy(0.3, labels, floor=0.3)
    with pytest.raises(BadData, match=r"right on 79\.0% of the test images, less than 80\.0%"):
        check_accuracy(0.79, labels)
