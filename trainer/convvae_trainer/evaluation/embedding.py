"""The quality of latents as embeddings: how well simple classifiers tell labelled images apart by them.

N = images, D = values of one vector, Z = latent dimension.
"""

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convvae_trainer.data.dataset import Dataset
from convvae_trainer.errors import MissingExtra
from convvae_trainer.evaluation.binarization import encoder_input
from convvae_trainer.evaluation.inference import posterior_means
from convvae_trainer.step.train_state import TrainState

__all__ = [
    "MAX_IMAGES",
    "EmbeddingMetrics",
    "VectorAccuracy",
    "check_installed",
    "compare_embeddings",
    "embedding_rows",
    "measure_embedding",
    "vector_accuracy",
]

NEIGHBOURS = 5
# The largest number of training images, and of test images; and of their pixels: 0.5 GB of float32.
MAX_IMAGES = 10_000
MAX_VALUES = 1 << 27
MAX_ITERATIONS = 200
SEED = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class VectorAccuracy:
    """Accuracies on test images, 0 to 1: of nearest neighbours, and of a linear classifier."""

    knn: float
    linear_probe: float


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbeddingMetrics:
    """Accuracies of posterior means, of equally many principal components, and of pixels.

    All three are fitted on the same `train_images` training images, and tested on the same `test_images` test
    images. `chance` is the accuracy of always predicting the most common class of the test images.
    """

    posterior_means: VectorAccuracy
    pca: VectorAccuracy
    pixels: VectorAccuracy
    chance: float
    neighbours: int
    pca_dimension: int
    train_images: int
    test_images: int


def check_installed() -> None:
    """Raise `MissingExtra` unless scikit-learn is installed."""
    try:
        import sklearn  # noqa: F401
    except ImportError:
        raise MissingExtra("scikit-learn") from None


def embedding_rows(images_NHWC: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Return the rows of the images to use, drawn by a fixed seed: all, or as many as memory allows."""
    limit = max(2, min(MAX_IMAGES, MAX_VALUES // math.prod(images_NHWC.shape[1:])))
    return np.random.default_rng(SEED).permutation(len(images_NHWC))[:limit]


def measure_embedding(train_state: TrainState, dataset: Dataset, *, binarize: str) -> EmbeddingMetrics:
    """Compare a run's posterior means with principal components and pixels.

    Args:
        train_state: Networks and likelihood; the averaged weights are used.
        dataset: The run's data, with labels.
        binarize: `dynamic` draws the images to 0 and 255 first.
    """
    assert dataset.train_labels is not None
    assert dataset.test_labels is not None
    train, test = embedding_rows(dataset.train), embedding_rows(dataset.test)
    train_images = encoder_input(dataset.train[train], binarize=binarize)
    test_images = encoder_input(dataset.test[test], binarize=binarize)
    return compare_embeddings(
        posterior_means(train_state, train_images),
        posterior_means(train_state, test_images),
        train_images=train_images,
        train_labels=dataset.train_labels[train],
        test_images=test_images,
        test_labels=dataset.test_labels[test],
    )


def compare_embeddings(
    train_NZ: NDArray[np.float32],
    test_NZ: NDArray[np.float32],
    *,
    train_images: NDArray[np.uint8],
    train_labels: NDArray[np.int64],
    test_images: NDArray[np.uint8],
    test_labels: NDArray[np.int64],
) -> EmbeddingMetrics:
    """Compare vectors of images with the images' principal components and pixels.

    Args:
        train_NZ: The vectors of the training images.
        test_NZ: The vectors of the test images.
        train_images: The training images, uint8 of shape (N, H, W, C).
        train_labels: The labels of the training images.
        test_images: The test images, uint8 of shape (N, H, W, C).
        test_labels: The labels of the test images.
    """
    from sklearn.decomposition import PCA

    train_ND, test_ND = _pixels(train_images), _pixels(test_images)
    dimension = min(train_NZ.shape[1], *train_ND.shape)
    pca = PCA(dimension, random_state=SEED).fit(train_ND)
    labels = {"train_labels": train_labels, "test_labels": test_labels}
    return EmbeddingMetrics(
        posterior_means=vector_accuracy(train_NZ, test_NZ, **labels),
        pca=vector_accuracy(pca.transform(train_ND), pca.transform(test_ND), **labels),
        pixels=vector_accuracy(train_ND, test_ND, **labels),
        chance=float(np.unique(test_labels, return_counts=True)[1].max() / len(test_labels)),
        neighbours=min(NEIGHBOURS, len(train_NZ)),
        pca_dimension=dimension,
        train_images=len(train_NZ),
        test_images=len(test_NZ),
    )


def vector_accuracy(
    train_ND: NDArray[Any],
    test_ND: NDArray[Any],
    *,
    train_labels: NDArray[np.int64],
    test_labels: NDArray[np.int64],
) -> VectorAccuracy:
    """Return the accuracy of 5 nearest neighbours, and of multinomial logistic regression, on test vectors.

    Vectors are centred and divided by one number, the root mean square of the training vectors. This keeps
    the order of distances, and does not enlarge dimensions that carry no information.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier

    centre_D = train_ND.mean(0)
    train, test = train_ND - centre_D, test_ND - centre_D
    scale = float(np.sqrt(np.square(train).mean())) or 1.0
    train, test = train / scale, test / scale
    knn = KNeighborsClassifier(min(NEIGHBOURS, len(train))).fit(train, train_labels)
    with warnings.catch_warnings():
        # A warning that the optimum is not quite reached, which changes the accuracy little.
        warnings.simplefilter("ignore")
        probe = LogisticRegression(max_iter=MAX_ITERATIONS).fit(train, train_labels)
    return VectorAccuracy(
        knn=float((knn.predict(test) == test_labels).mean()),
        linear_probe=float((probe.predict(test) == test_labels).mean()),
    )


def _pixels(images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the pixels of each image as a vector in 0..1, of shape (N, D)."""
    pixel_ND: NDArray[np.float32] = images_NHWC.reshape(len(images_NHWC), -1).astype(np.float32)
    pixel_ND /= 255
    return pixel_ND
