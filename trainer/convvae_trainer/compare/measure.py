"""Published models side by side on one data set's test images: figures, and the pictures that go with them.

N = images, H and W = height and width, C = channels, Z = latent dimension.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convvae_service.bundle import BundleError
from convvae_trainer.compare.bundle_model import BundleModel, Published, rate
from convvae_trainer.data.dataset import Dataset
from convvae_trainer.data.selection import drawn, varied
from convvae_trainer.errors import BadData
from convvae_trainer.evaluation.frechet import (
    NUM_FEATURES,
    Classifier,
    check_accuracy,
    frechet_distance,
    train_classifier,
)
from convvae_trainer.evaluation.image_quality import Quality, quality_of
from convvae_trainer.objectives.bound import ACTIVE_VARIANCE

__all__ = [
    "INTERPOLATION",
    "TRAVERSAL",
    "FeatureClassifier",
    "ModelReport",
    "TestSample",
    "check_dataset",
    "check_models",
    "choose",
    "measure",
    "train_judge",
]

NUM_DIMENSIONS = 6
TRAVERSAL = np.linspace(-3, 3, 7)
NUM_PAIRS = 4
INTERPOLATION = np.linspace(0, 1, 8)


@dataclass(frozen=True, kw_only=True, slots=True)
class TestSample:
    """The test images of a report, their rows in the test set, and which of them it shows."""

    rows: NDArray[np.intp]
    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | None
    shown: NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Strip:
    """A row of images and what it is of."""

    label: str
    note: str
    images: NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureClassifier:
    """The classifier in whose features Fréchet distances are taken.

    `reference` is the distance of as many training images from the test images: what real images have.
    """

    classifier: Classifier
    features: NDArray[np.float64]
    accuracy: float
    reference: float
    reference_images: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelReport:
    """A model's figures, None where it has none, and its pictures.

    Nats are per image. `deviation` is the posterior's mean standard deviation. `frechet_*` and `accuracy`
    need labels; `accuracy` is the share of reconstructions that the classifier takes for their image's class.
    """

    model: BundleModel
    quality: Quality
    distortion: float
    rate: float | None
    elbo: float | None
    bits_per_dim: float | None
    active_units: int
    deviation: float | None
    rate_per_dimension: list[float]
    frechet_reconstructions: float | None
    frechet_samples: float | None
    accuracy: float | None
    reconstructions: NDArray[np.uint8]
    traversal: list[Strip]
    interpolation: list[Strip]

    @property
    def published(self) -> Published:
        """The version."""
        return self.model.published

    @property
    def label(self) -> str:
        """What the report calls it."""
        return self.published.label

    @property
    def objective(self) -> str:
        """Of its training."""
        return self.published.manifest.objective

    @property
    def latent_dim(self) -> int:
        """Values in a latent vector."""
        return self.published.manifest.latent_dim

    def to_json_object(self) -> dict[str, Any]:
        """Return where it comes from and all figures."""
        manifest = self.published.manifest
        figures = (
            "distortion",
            "rate",
            "elbo",
            "bits_per_dim",
            "active_units",
            "deviation",
            "frechet_reconstructions",
            "frechet_samples",
            "accuracy",
            "rate_per_dimension",
        )
        return {
            "label": self.label,
            "model": manifest.model,
            "version": self.published.version,
            "precision": self.published.precision,
            "objective": manifest.objective,
            "likelihood": {
                key: value for key, value in asdict(manifest.likelihood).items() if value is not None
            },
            "latent_dim": manifest.latent_dim,
            "trained_on": manifest.training.dataset,
            "epochs": manifest.training.epochs,
            "seed": manifest.training.seed,
            **asdict(self.quality),
            "sharpness_distance": self.quality.sharpness_distance,
            **{name: getattr(self, name) for name in figures},
        }


def check_models(models: Sequence[Published]) -> None:
    """Raise `BundleError` unless all models are of images of one shape."""
    first = models[0]
    for other in models[1:]:
        if other.manifest.image != first.manifest.image:
            raise BundleError(
                f"{first.label} is of images of {first.manifest.image}, {other.label} of"
                f" {other.manifest.image}: only models of one shape compare"
            )


def check_dataset(dataset: Dataset, models: Sequence[Published]) -> None:
    """Raise `BadData` unless the images are of the models' shape; the message says what to give."""
    image = models[0].manifest.image
    if dataset.image == image:
        return
    if dataset.image.channels != image.channels:
        hint = "give data of the same channels"
    elif image.height == image.width:
        hint = f"--image-size {image.height} brings them to it"
    else:
        hint = f"--image-size {image.height}x{image.width} brings them to it"
    raise BadData(f"images of {dataset.name} are {dataset.image}, those of {models[0].label} {image}: {hint}")


def choose(dataset: Dataset, *, limit: int, columns: int, seed: int) -> TestSample:
    """Return `limit` test images drawn by `seed`; `columns` of them, of all classes if may be, are shown."""
    rows = drawn(len(dataset.test), limit, seed=seed)
    labels = None if dataset.test_labels is None else dataset.test_labels[rows]
    return TestSample(
        rows=rows,
        images=dataset.test if len(rows) == len(dataset.test) else dataset.test[rows],
        labels=labels,
        shown=varied(len(rows), labels, columns, seed=seed),
    )


def train_judge(
    dataset: Dataset, chosen: TestSample, *, progress: Callable[[float], None] | None = None
) -> FeatureClassifier | str:
    """Return the trained classifier with what it says of the test images, or in words why there is none."""
    if dataset.train_labels is None or chosen.labels is None:
        return "the data have no labels, which the classifier learns from"
    if len(chosen.images) <= NUM_FEATURES:
        return f"of {NUM_FEATURES} test images or fewer the distance is mostly bias"
    try:
        classifier = train_classifier(dataset.train, dataset.train_labels, progress=progress)
        accuracy = classifier.accuracy(chosen.images, chosen.labels)
        check_accuracy(accuracy, chosen.labels)
    except BadData as error:
        return str(error).partition("; --")[0]
    features = classifier.features(chosen.images)
    real = dataset.train[drawn(len(dataset.train), len(chosen.images))]
    return FeatureClassifier(
        classifier=classifier,
        features=features,
        accuracy=accuracy,
        reference=frechet_distance(features, classifier.features(real)) if len(real) > 1 else math.nan,
        reference_images=len(real),
    )


def measure(
    model: BundleModel, chosen: TestSample, *, judge: FeatureClassifier | None, seed: int = 0
) -> ModelReport:
    """Return a model's figures on the chosen images, and its pictures.

    Args:
        model: What is measured.
        chosen: Test images.
        judge: For Fréchet distances and the classifier's accuracy.
        seed: Of the posterior draw of each image, and of the draws from the prior.
    """
    noise = np.random.default_rng(seed)
    images = chosen.images
    mean_NZ, log_variance_NZ = model.encode(images)
    reconstructions = model.images_of(mean_NZ)
    values = images[0].size
    nats: dict[str, float | None] = {"rate": None, "elbo": None, "bits_per_dim": None, "deviation": None}
    rate_Z = np.empty(0)
    drawn_NZ = mean_NZ
    if log_variance_NZ is not None:
        deviation_NZ = np.exp(0.5 * log_variance_NZ)
        drawn_NZ = mean_NZ + deviation_NZ * noise.standard_normal(mean_NZ.shape, dtype=np.float32)
        rate_Z = rate(mean_NZ, log_variance_NZ).mean(axis=0)
    distorted = float(model.distortion(images, drawn_NZ).mean())
    if log_variance_NZ is not None:
        total = distorted + float(rate_Z.sum())
        nats = {
            "rate": float(rate_Z.sum()),
            "elbo": -total,
            "bits_per_dim": total / (values * math.log(2)),
            "deviation": float(deviation_NZ.mean(dtype=np.float64)),
        }
    of_reconstructions = of_samples = accuracy = None
    if judge is not None and chosen.labels is not None:
        features = judge.classifier.features(reconstructions)
        of_reconstructions = frechet_distance(judge.features, features)
        accuracy = judge.classifier.accuracy(reconstructions, chosen.labels)
        if log_variance_NZ is not None:
            prior = noise.standard_normal(mean_NZ.shape, dtype=np.float32)
            of_samples = frechet_distance(judge.features, judge.classifier.features(model.images_of(prior)))
    return ModelReport(
        model=model,
        quality=quality_of(images, reconstructions),
        distortion=distorted,
        **nats,
        active_units=int((mean_NZ.var(axis=0, dtype=np.float64) > ACTIVE_VARIANCE).sum()),
        rate_per_dimension=rate_Z.tolist(),
        frechet_reconstructions=of_reconstructions,
        frechet_samples=of_samples,
        accuracy=accuracy,
        reconstructions=reconstructions[chosen.shown],
        traversal=_traversal(model, mean_NZ, rate_Z, start=int(chosen.shown[0])),
        interpolation=_interpolation(model, mean_NZ[chosen.shown], images[chosen.shown]),
    )


def _traversal(
    model: BundleModel, mean_NZ: NDArray[np.float32], rate_Z: NDArray[np.float64], *, start: int
) -> list[Strip]:
    """Move one latent dimension at a time from -3 to 3, the others as the image has them.

    An autoencoder's codes have no unit: there it is three standard deviations of the codes around their mean.
    """
    has_rate = len(rate_Z) > 0
    spread_Z = mean_NZ.std(axis=0)
    order = np.argsort(-(rate_Z if has_rate else spread_Z), kind="stable")[:NUM_DIMENSIONS]
    strips = []
    for dimension in order:
        latent = np.repeat(mean_NZ[start : start + 1], len(TRAVERSAL), axis=0)
        latent[:, dimension] = TRAVERSAL
        if not has_rate:
            latent[:, dimension] = mean_NZ[:, dimension].mean() + TRAVERSAL * spread_Z[dimension]
        note = f"{rate_Z[dimension]:.2f} nats" if has_rate else f"deviation {spread_Z[dimension]:.2g}"
        strips.append(Strip(f"z{dimension}", note, model.images_of(latent)))
    return strips


def _interpolation(
    model: BundleModel, mean_NZ: NDArray[np.float32], images: NDArray[np.uint8]
) -> list[Strip]:
    """Go from one image's latents to the next one's in a straight line, both inputs at its ends."""
    strips = []
    for first in range(0, min(len(images) - 1, 2 * NUM_PAIRS), 2):
        weight = INTERPOLATION[:, None].astype(np.float32)
        path = (1 - weight) * mean_NZ[first] + weight * mean_NZ[first + 1]
        between = model.images_of(path)
        row = np.concatenate([images[first : first + 1], between, images[first + 1 : first + 2]])
        strips.append(Strip(f"pair {first // 2 + 1}", "", row))
    return strips
