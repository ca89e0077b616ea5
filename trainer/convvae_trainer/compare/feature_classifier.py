"""The classifier in whose features a comparison measures Fréchet distances.

N = images, F = features.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convvae_trainer.compare.sample import TestSample
from convvae_trainer.data.dataset import Dataset
from convvae_trainer.data.selection import drawn
from convvae_trainer.errors import BadData
from convvae_trainer.evaluation.classifier import (
    NUM_FEATURES,
    ClassifierNetwork,
    check_accuracy,
    train_classifier,
)
from convvae_trainer.evaluation.frechet import frechet_distance

__all__ = ["FeatureClassifier", "train_feature_classifier"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureClassifier:
    """A trained network, the test images' features of shape (N, F), and its accuracy on them, 0 to 1.

    `reference` is the Fréchet distance between the test images and `reference_images` training images: the
    distance of real images.
    """

    network: ClassifierNetwork
    features: NDArray[np.float64]
    accuracy: float
    reference: float
    reference_images: int

    def distance(self, images_NHWC: NDArray[np.uint8]) -> float:
        """Return the Fréchet distance between the test images and other images."""
        return frechet_distance(self.features, self.network.features(images_NHWC))


def train_feature_classifier(
    dataset: Dataset, sample: TestSample, *, progress: Callable[[float], None] | None = None
) -> FeatureClassifier | str:
    """Train the classifier on the training images.

    Args:
        dataset: The data set.
        sample: The test images of the comparison.
        progress: Called now and then with the share that is done, 0 to 1.

    Returns:
        The classifier; or a phrase that says why there is none.
    """
    if dataset.train_labels is None or sample.labels is None:
        return "the data have no labels, and the classifier needs them"
    if len(sample.images) <= NUM_FEATURES:
        return f"with {NUM_FEATURES} test images or fewer the distance is mostly bias"
    try:
        network = train_classifier(dataset.train, dataset.train_labels, progress=progress)
        accuracy = network.accuracy(sample.images, sample.labels)
        check_accuracy(accuracy, sample.labels)
    except BadData as error:
        # `compare` has no option for the accuracy floor, which the end of the message names.
        return str(error).partition("; --")[0]
    features = network.features(sample.images)
    train_rows = drawn(len(dataset.train), len(sample.images))
    reference = math.nan
    if len(train_rows) > 1:
        reference = frechet_distance(features, network.features(dataset.train[train_rows]))
    return FeatureClassifier(
        network=network,
        features=features,
        accuracy=accuracy,
        reference=reference,
        reference_images=len(train_rows),
    )
