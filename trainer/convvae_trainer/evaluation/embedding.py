"""What vectors are worth as embeddings: how well simple classifiers tell labelled images apart by them.

N = images, D = values of one vector.
"""

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convvae_trainer.errors import MissingExtra

__all__ = ["MAX_IMAGES", "Embedding", "Worth", "check_installed", "chosen", "compare_embeddings", "worth"]

NEIGHBOURS = 5
# Of the training, and of the test images, fewer where they are large: 0.5 GB of float32 pixels.
MAX_IMAGES = 10_000
MAX_VALUES = 1 << 27
MAX_ITERATIONS = 200
SEED = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Worth:
    """Accuracies on test images, 0 to 1: of the nearest neighbours' vote, and of a linear classifier."""

    knn: float
    linear_probe: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Embedding:
    """The worth of posterior means, of as many principal components, and of pixels.

    All three are fitted on the same `train_images` training images, and measured on `test_images` test
    images. `chance` is the accuracy of always guessing the commonest class of these.
    """

    posterior_means: Worth
    pca: Worth
    pixels: Worth
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


def chosen(images_NHWC: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Return the rows that are taken: all, or as many as there is memory for, drawn by a fixed seed."""
    limit = max(2, min(MAX_IMAGES, MAX_VALUES // math.prod(images_NHWC.shape[1:])))
    return np.random.default_rng(SEED).permutation(len(images_NHWC))[:limit]


def compare_embeddings(
    train_NZ: NDArray[np.float32],
    test_NZ: NDArray[np.float32],
    *,
    train_images: NDArray[np.uint8],
    train_labels: NDArray[np.int64],
    test_images: NDArray[np.uint8],
    test_labels: NDArray[np.int64],
) -> Embedding:
    """Return the worth of vectors beside that of the images' pixels and principal components.

    Args:
        train_NZ: Vectors of the training images.
        test_NZ: Vectors of the test images.
        train_images: Of the same rows.
        train_labels: Of the same rows.
        test_images: Of the same rows.
        test_labels: Of the same rows.
    """
    from sklearn.decomposition import PCA

    train_ND, test_ND = _pixels(train_images), _pixels(test_images)
    dimension = min(train_NZ.shape[1], *train_ND.shape)
    pca = PCA(dimension, random_state=SEED).fit(train_ND)
    labels = {"train_labels": train_labels, "test_labels": test_labels}
    return Embedding(
        posterior_means=worth(train_NZ, test_NZ, **labels),
        pca=worth(pca.transform(train_ND), pca.transform(test_ND), **labels),
        pixels=worth(train_ND, test_ND, **labels),
        chance=float(np.unique(test_labels, return_counts=True)[1].max() / len(test_labels)),
        neighbours=min(NEIGHBOURS, len(train_NZ)),
        pca_dimension=dimension,
        train_images=len(train_NZ),
        test_images=len(test_NZ),
    )


def worth(
    train_ND: NDArray[Any],
    test_ND: NDArray[Any],
    *,
    train_labels: NDArray[np.int64],
    test_labels: NDArray[np.int64],
) -> Worth:
    """Return how well 5 nearest neighbours, and a multinomial logistic regression, name test vectors.

    Vectors are centred and divided by one number, the root mean square of the training vectors: neighbours
    stay neighbours, and a dimension that says nothing is not blown up.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier

    centre_D = train_ND.mean(0)
    train, test = train_ND - centre_D, test_ND - centre_D
    scale = float(np.sqrt(np.square(train).mean())) or 1.0
    train, test = train / scale, test / scale
    knn = KNeighborsClassifier(min(NEIGHBOURS, len(train))).fit(train, train_labels)
    with warnings.catch_warnings():
        # It says that the optimum is not quite reached, which matters little here.
        warnings.simplefilter("ignore")
        probe = LogisticRegression(max_iter=MAX_ITERATIONS).fit(train, train_labels)
    return Worth(
        knn=float((knn.predict(test) == test_labels).mean()),
        linear_probe=float((probe.predict(test) == test_labels).mean()),
    )


def _pixels(images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    pixel_ND: NDArray[np.float32] = images_NHWC.reshape(len(images_NHWC), -1).astype(np.float32)
    pixel_ND /= 255
    return pixel_ND
