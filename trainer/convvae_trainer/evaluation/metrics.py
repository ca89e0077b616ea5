"""Evaluation on test images: the record of all metrics, and the metrics that every evaluation computes."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from convvae_trainer.data.dataset import Dataset
from convvae_trainer.data.labelled_images import LabelledImages
from convvae_trainer.data.trained_on import Fingerprints, unseen
from convvae_trainer.evaluation.binarization import BINARIZE_SEED, encoder_input
from convvae_trainer.evaluation.bound import BoundAccumulator, BoundMetrics
from convvae_trainer.evaluation.embedding import EmbeddingMetrics
from convvae_trainer.evaluation.frechet import FrechetMetrics
from convvae_trainer.evaluation.image_quality import (
    QualityAccumulator,
    ReconstructionQuality,
    log_ratio,
    sharpness,
)
from convvae_trainer.evaluation.importance import LogLikelihood
from convvae_trainer.evaluation.inference import posterior_draws, prior_means
from convvae_trainer.step.train_state import TrainState

__all__ = [
    "EVALUATION_KEYS",
    "OPTIONAL_METRICS",
    "Evaluation",
    "OptionalMetrics",
    "evaluate",
    "evaluate_run",
    "published_metrics",
]

# The largest number of draws from the prior whose sharpness is measured.
MAX_SAMPLES = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class OptionalMetrics:
    """The metrics that are computed on request; None if they were not requested."""

    log_likelihood: LogLikelihood | None = None
    embedding: EmbeddingMetrics | None = None
    frechet: FrechetMetrics | None = None


# Their keys in evaluation.json.
OPTIONAL_METRICS = tuple(metric.name for metric in fields(OptionalMetrics))


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Evaluation:
    """The metrics of a run on test images.

    `split` describes which images of `dataset` they are. `seed` is the seed of the posterior draws.
    `reconstruction` compares the images decoded from posterior means with the encoder's input.
    `sample_sharpness` is the mean sharpness of draws from the prior; an autoencoder has none. `left_out`
    counts the images that the run was trained on and that are no test images for that reason; it is None if
    that cannot be told. `advice` has a line for each sign that the run has not learned what it could.
    """

    dataset: str
    split: str
    images: int
    seed: int
    binarize: str
    bound: BoundMetrics
    reconstruction: ReconstructionQuality
    sample_sharpness: float | None
    optional: OptionalMetrics = field(default_factory=OptionalMetrics)
    left_out: int | None = 0
    advice: tuple[str, ...] = ()

    def __repr__(self) -> str:
        bound = self.bound
        terms = {"ELBO": bound.elbo, "distortion": bound.distortion, "rate": bound.rate}
        nats = ", ".join(f"{name} {value:.2f}" for name, value in terms.items() if value is not None)
        units = f"{bound.active_units} of {bound.latent_dim} units active"
        psnr = f"PSNR {self.reconstruction.psnr_db:.2f} dB"
        return f"Evaluation({self.dataset!r}, {self.images} images: {nats} nats per image, {units}, {psnr})"

    @property
    def binarize_seed(self) -> int | None:
        """The seed of the draw to 0 and 255; None if the images were not binarized."""
        return BINARIZE_SEED if self.binarize == "dynamic" else None

    @property
    def sample_sharpness_distance(self) -> float | None:
        """The distance |ln(ratio)| between the sharpness of draws from the prior and of the test images."""
        if self.sample_sharpness is None:
            return None
        return log_ratio(self.sample_sharpness, self.reconstruction.input_sharpness)

    def to_json_object(self) -> dict[str, Any]:
        """Return all metrics as JSON types, under one flat set of keys."""
        return {
            "dataset": self.dataset,
            "split": self.split,
            "images": self.images,
            "left_out": self.left_out,
            **asdict(self.bound),
            "rate_per_dimension": list(self.bound.rate_per_dimension),
            "seed": self.seed,
            "binarize": self.binarize,
            "binarize_seed": self.binarize_seed,
            **asdict(self.reconstruction),
            "sharpness_distance": self.reconstruction.sharpness_distance,
            "sample_sharpness": self.sample_sharpness,
            "sample_sharpness_distance": self.sample_sharpness_distance,
            **asdict(self.optional),
            "advice": list(self.advice),
        }


# The keys of every evaluation.json; files of earlier versions have no others.
EVALUATION_KEYS = frozenset(
    {
        *("dataset", "split", "images", "seed", "binarize", "binarize_seed"),
        *(metric.name for metric in (*fields(BoundMetrics), *fields(ReconstructionQuality))),
        *("sharpness_distance", "sample_sharpness", "sample_sharpness_distance"),
        *OPTIONAL_METRICS,
    }
) - {"bits_per_dim_missing"}


@torch.no_grad()
def evaluate(
    train_state: TrainState,
    images_NHWC: NDArray[np.uint8],
    *,
    dataset: str,
    split: str = "",
    binarize: str,
    seed: int = 0,
) -> Evaluation:
    """Evaluate the averaged weights on all images, with one posterior draw for each, in float32.

    Args:
        train_state: Networks and likelihood.
        images_NHWC: uint8 images.
        dataset: The name of the data set, for the record.
        split: A description of the images, for the record.
        binarize: `dynamic` draws the images to 0 and 255 first, always the same way.
        seed: The seed of the posterior draws.
    """
    images_NHWC = encoder_input(images_NHWC, binarize=binarize)
    bound, quality = BoundAccumulator(train_state), QualityAccumulator()
    with train_state.ema.swapped_in():
        for draws in posterior_draws(train_state, images_NHWC, seed=seed):
            bound.add(draws)
            output_BCHW = train_state.model.decoder(draws.mean)
            quality.add(draws.images, train_state.likelihood.pixel_mean(output_BCHW))
        bound_metrics = bound.metrics()
    sample_sharpness = None
    if bound_metrics.rate is not None:
        count = min(len(images_NHWC), MAX_SAMPLES)
        sample_sharpness = _sample_sharpness(train_state, count, seed=seed)
    return Evaluation(
        dataset=dataset,
        split=split,
        images=len(images_NHWC),
        seed=seed,
        binarize=binarize,
        bound=bound_metrics,
        reconstruction=quality.quality(),
        sample_sharpness=sample_sharpness,
    )


def evaluate_run(
    train_state: TrainState, dataset: Dataset, *, trained_on: Fingerprints | None = None
) -> Evaluation:
    """Evaluate a run on the test images of its own data, as `evaluate` does, with the run's settings.

    Args:
        train_state: The networks and their likelihood.
        dataset: The data of the run.
        trained_on: The fingerprints of the images that the weights were trained on, in this run or before it:
            none of them is a test image. None: they are not known.

    Raises:
        BadData: No test image is left.
    """
    config = train_state.config
    found = unseen(LabelledImages(dataset.test, None), {"the weights": trained_on}, name=dataset.name)
    evaluation = evaluate(
        train_state,
        found.data.images,
        dataset=dataset.name,
        split=dataset.split,
        binarize=config.binarize,
        seed=config.seed,
    )
    return replace(evaluation, left_out=found.left_out["the weights"])


def _sample_sharpness(train_state: TrainState, count: int, *, seed: int) -> float:
    means = prior_means(train_state, count, seed=seed)
    return sum(sharpness(mean_BCHW).double().sum().item() for mean_BCHW in means) / count


def published_metrics(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metrics that a bundle's manifest holds.

    Args:
        values: An evaluation as `Evaluation.to_json_object` returns it.
    """
    metrics = {
        "test_elbo_nats": values["elbo"],
        "test_distortion_nats": values["distortion"],
        "test_rate_nats": values["rate"],
        "test_bits_per_dim": values["bits_per_dim"],
        "test_active_units": values["active_units"],
    }
    for name in ("mse", "psnr_db", "ssim", "sharpness", "input_sharpness"):
        metrics[f"test_{name}"] = values[name]
    if values["sample_sharpness"] is not None:
        metrics["test_sample_sharpness"] = values["sample_sharpness"]
    if log_likelihood := values["log_likelihood"]:
        metrics["test_log_likelihood_nats"] = log_likelihood["nats"]
        metrics["test_log_likelihood_images"] = log_likelihood["images"]
        metrics["test_importance_samples"] = log_likelihood["samples"]
    if embedding := values["embedding"]:
        metrics["test_knn_accuracy"] = embedding["posterior_means"]["knn"]
        metrics["test_linear_probe_accuracy"] = embedding["posterior_means"]["linear_probe"]
    if frechet := values["frechet"]:
        metrics["test_frechet_reconstructions"] = frechet["reconstructions"]
        metrics["test_frechet_samples"] = frechet["samples"]
        metrics["test_frechet_images"] = frechet["images"]
        metrics["test_frechet_classifier_accuracy"] = frechet["classifier_accuracy"]
    return metrics
