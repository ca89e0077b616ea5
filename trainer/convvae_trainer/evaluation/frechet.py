"""The Fréchet distance of two sets of images, in the features of a small classifier of the data set.

Distances on other data, or in the features of another network such as Inception, cannot be compared with it.
N = images, F = features.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convvae_trainer.data.dataset import Dataset
from convvae_trainer.data.selection import drawn
from convvae_trainer.evaluation.binarization import encoder_input
from convvae_trainer.evaluation.classifier import (
    NUM_FEATURES,
    check_accuracy,
    default_floor,
    train_classifier,
)
from convvae_trainer.evaluation.inference import reconstructions, samples
from convvae_trainer.step.train_state import TrainState

__all__ = ["FrechetMetrics", "frechet_distance", "measure_frechet", "num_frechet_images"]

# The largest number of images in each set.
MAX_IMAGES = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class FrechetMetrics:
    """Fréchet distances between `images` test images and as many other images, in `features` features.

    `samples` are draws from the prior; it is None for an autoencoder. `training_images` is the distance that
    real images have. The lower `classifier_accuracy` on the test images, the less the distances mean.
    """

    reconstructions: float
    samples: float | None
    training_images: float
    images: int
    features: int
    classifier_accuracy: float
    accuracy_floor: float


def num_frechet_images(dataset: Dataset) -> int:
    """Return the number of images in each set of a Fréchet distance."""
    return min(len(dataset.train), len(dataset.test), MAX_IMAGES)


def measure_frechet(
    train_state: TrainState,
    dataset: Dataset,
    *,
    binarize: str,
    seed: int,
    floor: float | None = None,
    progress: Callable[[float], None] | None = None,
) -> FrechetMetrics:
    """Train the classifier, and measure distances from the test images, which are not binarized.

    Args:
        train_state: Networks and likelihood.
        dataset: The run's data, with labels.
        binarize: `dynamic` reconstructs the images drawn to 0 and 255.
        seed: The seed of the draws from the prior.
        floor: The lowest accuracy of the classifier. None: `default_floor`.
        progress: Called now and then with the share of the training that is done, 0 to 1.

    Raises:
        BadData: The classifier's accuracy is below the floor.
    """
    assert dataset.train_labels is not None
    assert dataset.test_labels is not None
    count = num_frechet_images(dataset)
    # Drawn, since a data set may be sorted by class.
    test = dataset.test[drawn(len(dataset.test), count)]
    train = dataset.train[drawn(len(dataset.train), count)]
    classifier = train_classifier(
        dataset.train, dataset.train_labels, device=train_state.device, progress=progress
    )
    accuracy = classifier.accuracy(dataset.test, dataset.test_labels)
    floor = default_floor(dataset.test_labels) if floor is None else floor
    check_accuracy(accuracy, dataset.test_labels, floor=floor)
    test_features = classifier.features(test)

    def distance(images_NHWC: NDArray[np.uint8]) -> float:
        return frechet_distance(test_features, classifier.features(images_NHWC))

    has_prior = train_state.objective.has_rate
    return FrechetMetrics(
        reconstructions=distance(reconstructions(train_state, encoder_input(test, binarize=binarize))),
        samples=distance(samples(train_state, count, seed=seed)) if has_prior else None,
        training_images=distance(train),
        images=count,
        features=NUM_FEATURES,
        classifier_accuracy=accuracy,
        accuracy_floor=floor,
    )


def frechet_distance(features_a: NDArray[np.float64], features_b: NDArray[np.float64]) -> float:
    """Return |mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)) of the features' means and covariances A and B.

    This is the squared Wasserstein-2 distance of two Gaussians (Heusel et al. 2017, section 2). It is
    biased upwards with few images: compare sets of the same size.

    Args:
        features_a: Features of shape (N, F), with at least two rows.
        features_b: Features of shape (M, F), with at least two rows.

    Raises:
        ValueError: The arrays have other shapes, or values that are not finite.
    """
    for features in (features_a, features_b):
        if features.ndim != 2 or len(features) < 2 or features.shape[1] != features_a.shape[1]:
            raise ValueError(f"features of {features_a.shape} and {features_b.shape} have no distance")
        if not np.isfinite(features).all():
            raise ValueError("features hold values that are not finite")
    offset_F = features_a.mean(0, dtype=np.float64) - features_b.mean(0, dtype=np.float64)
    root_a, root_b = _root(features_a), _root(features_b)
    # With A = R R' and B = S S', the trace of (A B)^(1/2) is the sum of the singular values of R' S. Unlike a
    # root of A B, which is not symmetric, these are real, and precise also if A or B is singular.
    root_trace = np.linalg.svd(root_a.T @ root_b, compute_uv=False).sum()
    distance = offset_F @ offset_F + np.square(root_a).sum() + np.square(root_b).sum() - 2 * root_trace
    return max(0.0, float(distance))


def _root(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return R with covariance = R R', from the eigenvalues and eigenvectors of the covariance."""
    covariance = np.atleast_2d(np.cov(features, rowvar=False, dtype=np.float64))
    values, vectors = np.linalg.eigh(covariance)
    root: NDArray[np.float64] = vectors * np.sqrt(values.clip(min=0))
    return root
