"""Figures on test images: the bound and its terms, bits per dimension, active units, quality of images.

B = batch, C = channels, H and W = height and width, Z = latent dimension, N = all images.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from convvae_trainer.data.chunking import chunk_size, chunks
from convvae_trainer.evaluation.embedding import Embedding
from convvae_trainer.evaluation.image_quality import QualityAccumulator, log_ratio, sharpness
from convvae_trainer.evaluation.importance import LogLikelihood
from convvae_trainer.evaluation.inference import batches_of, prior_means
from convvae_trainer.networks.likelihoods import LOG_SIGMA_RANGE
from convvae_trainer.objectives.bound import ACTIVE_VARIANCE, kl_to_prior, reparameterise
from convvae_trainer.step.train_state import TrainState

__all__ = [
    "OPTIONAL_METRICS",
    "Evaluation",
    "Frechet",
    "binarized",
    "evaluate",
    "fit_sigma",
    "mean_bound",
    "published_metrics",
]

# The draw of binary test images, the same in every evaluation.
BINARIZE_SEED = 777
# Draws from the prior whose sharpness is measured.
MAX_DRAWS = 1000
# The figures that are computed on request only.
OPTIONAL_METRICS = ("log_likelihood", "embedding", "frechet")


@dataclass(frozen=True, kw_only=True, slots=True)
class Frechet:
    """Fréchet distances from `images` test images, each of as many images, in a classifier's `features`.

    `samples` are draws from the prior, None where there is none; `training_images` says what real ones have.
    Distances mean the less, the lower `classifier_accuracy` on the test images is.
    """

    reconstructions: float
    samples: float | None
    training_images: float
    images: int
    features: int
    classifier_accuracy: float
    accuracy_floor: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """Means over all images, in nats per image unless the name says otherwise.

    `split` says in words which images of `dataset` they are. `bits_per_dim` is -elbo / (values of an image *
    ln 2), for pixels in 0..1. `active_units` counts the latent dimensions whose posterior mean has a variance
    over the images above 0.01. `rate_per_dimension` sums to `rate`. `sigma` is the Gaussian's, in the unit of
    pixels in 0..1.

    `mse`, `psnr_db`, `ssim` and `sharpness` are of reconstructions from the posterior mean, against what the
    encoder was given; `sample_sharpness` is of draws from the prior. A sharpness distance is |ln(ratio)| to
    the `input_sharpness`. What was not asked for, or does not exist, is None.
    """

    dataset: str
    split: str
    images: int
    elbo: float | None
    distortion: float
    rate: float | None
    bits_per_dim: float | None
    active_units: int
    latent_dim: int
    likelihood: str
    sigma: float | None
    rate_per_dimension: tuple[float, ...]
    posterior_samples: int
    seed: int
    binarize: str
    binarize_seed: int | None
    mse: float
    psnr_db: float
    ssim: float
    sharpness: float
    input_sharpness: float
    sharpness_distance: float | None
    sample_sharpness: float | None
    sample_sharpness_distance: float | None
    log_likelihood: LogLikelihood | None = None
    embedding: Embedding | None = None
    frechet: Frechet | None = None

    def to_json_object(self) -> dict[str, Any]:
        """Return the figures as JSON types."""
        return {**dataclasses.asdict(self), "rate_per_dimension": list(self.rate_per_dimension)}


def binarized(images_NHWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return images of 0 and 255, drawn once with grey levels as probabilities."""
    random = np.random.default_rng(BINARIZE_SEED)
    drawn_NHWC = np.empty(images_NHWC.shape, np.uint8)
    # By chunks, for the memory; the draws are those of the whole.
    height, width, channels = images_NHWC.shape[1:]
    for part in chunks(len(images_NHWC), chunk_size(height, width, channels, base=0)):
        images_BHWC = images_NHWC[part]
        level_BHWC = random.random(images_BHWC.shape, dtype=np.float32)
        drawn_NHWC[part] = np.where(level_BHWC * 255 < images_BHWC, 255, 0)
    return drawn_NHWC


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
        dataset: What the result calls the images.
        split: Which images of it they are, in words.
        binarize: `dynamic` draws them to 0 and 255 first, always the same way.
        seed: Of the posterior draws.
    """
    if binarize == "dynamic":
        images_NHWC = binarized(images_NHWC)
    terms = _Terms(train_state)
    means: list[torch.Tensor] = []
    tally = QualityAccumulator()
    with train_state.ema.swapped_in():
        sigma = train_state.likelihood.constants().sigma
        for x_BCHW, mean_BZ, log_variance_BZ, pixels_BCHW in _draws(train_state, images_NHWC, seed=seed):
            terms.add(x_BCHW, mean_BZ, log_variance_BZ, pixels_BCHW)
            means.append(mean_BZ)
            tally.add(x_BCHW, train_state.likelihood.pixel_mean(train_state.model.decoder(mean_BZ)))
    count = len(images_NHWC)
    distortion, rate_Z = terms.means(count)
    mean_NZ = torch.cat(means)
    active = int((mean_NZ.double().var(0, unbiased=False) > ACTIVE_VARIANCE).sum().item())
    has_rate = train_state.config.objective != "ae"
    elbo = -(distortion + sum(rate_Z)) if has_rate else None
    quality = tally.quality()
    drawn = _sample_sharpness(train_state, min(count, MAX_DRAWS), seed=seed) if has_rate else None
    return Evaluation(
        dataset=dataset,
        split=split,
        images=count,
        elbo=elbo,
        distortion=distortion,
        rate=sum(rate_Z) if has_rate else None,
        bits_per_dim=None if elbo is None else -elbo / (math.prod(images_NHWC.shape[1:]) * math.log(2)),
        active_units=active,
        latent_dim=train_state.config.latent_dim,
        likelihood=train_state.likelihood.name,
        sigma=sigma,
        rate_per_dimension=tuple(rate_Z) if has_rate else (),
        posterior_samples=1,
        seed=seed,
        binarize=binarize,
        binarize_seed=BINARIZE_SEED if binarize == "dynamic" else None,
        **dataclasses.asdict(quality),
        sharpness_distance=quality.sharpness_distance,
        sample_sharpness=drawn,
        sample_sharpness_distance=None if drawn is None else log_ratio(drawn, quality.input_sharpness),
    )


@torch.no_grad()
def mean_bound(
    train_state: TrainState, images_NHWC: NDArray[np.uint8], *, binarize: str, seed: int = 0
) -> float:
    """Return the ELBO as `evaluate` has it, of an autoencoder minus the distortion, and compute no more.

    Args:
        train_state: Networks and likelihood; the averaged weights are taken.
        images_NHWC: uint8 images.
        binarize: As in `evaluate`.
        seed: Of the posterior draws.
    """
    if binarize == "dynamic":
        images_NHWC = binarized(images_NHWC)
    terms = _Terms(train_state)
    with train_state.ema.swapped_in():
        for batch in _draws(train_state, images_NHWC, seed=seed):
            terms.add(*batch)
    distortion, rate_Z = terms.means(len(images_NHWC))
    return -distortion if train_state.config.objective == "ae" else -(distortion + sum(rate_Z))


class _Terms:
    """Sums of distortion and rates over images."""

    def __init__(self, train_state: TrainState) -> None:
        self._likelihood = train_state.likelihood
        self._distortion = 0.0
        self._rates: list[torch.Tensor] = []

    def add(
        self,
        x_BCHW: torch.Tensor,
        mean_BZ: torch.Tensor,
        log_variance_BZ: torch.Tensor,
        pixels_BCHW: torch.Tensor,
    ) -> None:
        """Add a batch that `_draws` yields."""
        self._distortion += self._likelihood.evaluated_distortion(pixels_BCHW, x_BCHW).double().sum().item()
        self._rates.append(kl_to_prior(mean_BZ, log_variance_BZ).double().sum(0))

    def means(self, count: int) -> tuple[float, list[float]]:
        """Return the means over `count` images: of the distortion, and of each dimension's rate."""
        rate_Z: list[float] = (torch.stack(self._rates).sum(0) / count).tolist()
        return self._distortion / count, rate_Z


def _sample_sharpness(train_state: TrainState, count: int, *, seed: int) -> float:
    drawn = prior_means(train_state, count, seed=seed)
    return sum(sharpness(mean_BCHW).double().sum().item() for mean_BCHW in drawn) / count


def published_metrics(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a bundle's manifest says of an evaluation, as `Evaluation.to_json_object` has it."""
    metrics = {
        "test_elbo_nats": values["elbo"],
        "test_distortion_nats": values["distortion"],
        "test_rate_nats": values["rate"],
        "test_bits_per_dim": values["bits_per_dim"],
        "test_active_units": values["active_units"],
    }
    # Absent from the evaluation of a run that an earlier version of the trainer made.
    for name in ("mse", "psnr_db", "ssim", "sharpness", "input_sharpness", "sample_sharpness"):
        if values.get(name) is not None:
            metrics[f"test_{name}"] = values[name]
    if found := values.get("log_likelihood"):
        metrics["test_log_likelihood_nats"] = found["nats"]
        metrics["test_log_likelihood_images"] = found["images"]
        metrics["test_importance_samples"] = found["samples"]
    if found := values.get("embedding"):
        metrics["test_knn_accuracy"] = found["posterior_means"]["knn"]
        metrics["test_linear_probe_accuracy"] = found["posterior_means"]["linear_probe"]
    if found := values.get("frechet"):
        metrics["test_frechet_reconstructions"] = found["reconstructions"]
        metrics["test_frechet_samples"] = found["samples"]
        metrics["test_frechet_images"] = found["images"]
        metrics["test_frechet_classifier_accuracy"] = found["classifier_accuracy"]
    return metrics


@torch.no_grad()
def fit_sigma(train_state: TrainState, images_NHWC: NDArray[np.uint8], *, seed: int = 0) -> float:
    """Give the Gaussian the sigma that is most likely on these images, and return it.

    It is the root mean square of what one posterior draw for each image leaves of its pixels.
    """
    total = 0.0
    with train_state.ema.swapped_in():
        for x_BCHW, _, _, pixels_BCHW in _draws(train_state, images_NHWC, seed=seed):
            total += (pixels_BCHW - x_BCHW).double().square().sum().item()
    log_sigma = 0.5 * math.log(max(total / images_NHWC.size, 1e-12))
    low, high = LOG_SIGMA_RANGE
    log_sigma = min(max(log_sigma, low), high)
    train_state.ema.fill("likelihood.log_sigma", log_sigma)
    return math.exp(log_sigma)


def _draws(
    train_state: TrainState, images_NHWC: NDArray[np.uint8], *, seed: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Yield (images, means, log-variances, pixel means of one draw for each image), batch by batch."""
    noise = np.random.default_rng(seed)
    for x_BCHW in batches_of(train_state, images_NHWC):
        mean_BZ, log_variance_BZ = train_state.model.encoder(x_BCHW)
        drawn_BZ = noise.standard_normal(tuple(mean_BZ.shape), dtype=np.float32)
        noise_BZ = torch.from_numpy(drawn_BZ).to(train_state.device)
        output_BCHW = train_state.model.decoder(reparameterise(mean_BZ, log_variance_BZ, noise_BZ))
        yield x_BCHW, mean_BZ, log_variance_BZ, train_state.likelihood.pixel_mean(output_BCHW)
