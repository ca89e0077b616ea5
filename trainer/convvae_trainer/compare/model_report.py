"""The measurement of one published model: its figures and its images.

N = images, Z = latent dimension.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from convvae_service.bundle import Manifest
from convvae_trainer.compare.bundle_model import BundleModel
from convvae_trainer.compare.feature_classifier import FeatureClassifier
from convvae_trainer.compare.image_row import ImageRow
from convvae_trainer.compare.latent_paths import interpolations, traversals
from convvae_trainer.compare.nearest import NUM_SEARCHED, NearestImages, PriorDraws
from convvae_trainer.compare.own_size import SizedSharpness, sized_sharpness
from convvae_trainer.compare.published import PublishedVersion
from convvae_trainer.compare.sample import TestSample
from convvae_trainer.data.binary_pixels import is_binary
from convvae_trainer.evaluation.bits_per_dim import bits_per_dim, no_bits_reason
from convvae_trainer.evaluation.image_quality import ReconstructionQuality, reconstruction_quality
from convvae_trainer.objectives.bound import ACTIVE_VARIANCE, kl_to_prior

__all__ = ["FrechetFigures", "ModelReport", "PosteriorFigures", "measure"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PosteriorFigures:
    """Figures that need a posterior; an autoencoder has none of them.

    `rate` and `elbo` are in nats per image, `deviation` is the mean standard deviation of the posterior.
    `bits_per_dim` is None if the likelihood is no probability of pixels; `bits_per_dim_missing` says why.
    """

    rate: float | None = None
    elbo: float | None = None
    bits_per_dim: float | None = None
    deviation: float | None = None
    rate_per_dimension: tuple[float, ...] = ()
    bits_per_dim_missing: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class FrechetFigures:
    """Figures that need labels; all None without them.

    Fréchet distances are from the test images; draws from the prior have none where there is no prior.
    `accuracy` is the share of reconstructions that the classifier assigns to their image's class, 0 to 1.
    """

    frechet_reconstructions: float | None = None
    frechet_samples: float | None = None
    accuracy: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelReport:
    """The figures and images of one model. `distortion` is in nats per image.

    `quality` is at full size, `sized` at the images' own size and at half of that. `mean_image_ssim` is the
    SSIM of the mean image with the test images. `reconstructions` are those of the shown test images. A model
    that is not shown in pictures has no traversals and no interpolations.
    """

    bundle: BundleModel
    quality: ReconstructionQuality
    sized: SizedSharpness
    mean_image_ssim: float
    distortion: float
    active_units: int
    posterior: PosteriorFigures
    frechet: FrechetFigures
    reconstructions: NDArray[np.uint8]
    draws: PriorDraws | None
    traversals: list[ImageRow]
    interpolations: list[ImageRow]

    @property
    def published(self) -> PublishedVersion:
        """The version that was measured."""
        return self.bundle.published

    @property
    def label(self) -> str:
        """The model's name in the report."""
        return self.published.label

    @property
    def objective(self) -> str:
        """The objective that the model was trained with."""
        return self.published.manifest.objective

    @property
    def latent_dim(self) -> int:
        """The number of values in a latent vector."""
        return self.published.manifest.latent_dim

    def to_json_object(self) -> dict[str, Any]:
        """Return the model's origin and all its figures."""
        manifest = self.published.manifest
        likelihood = {key: value for key, value in asdict(manifest.likelihood).items() if value is not None}
        return {
            "label": self.label,
            "model": manifest.model,
            "version": self.published.version,
            "precision": self.published.precision,
            "objective": manifest.objective,
            "likelihood": likelihood,
            "latent_dim": manifest.latent_dim,
            "trained_on": manifest.training.dataset,
            "epochs": manifest.training.epochs,
            "seed": manifest.training.seed,
            **asdict(self.quality),
            "sharpness_distance": self.quality.sharpness_distance,
            "own_size": [self.sized.height, self.sized.width],
            "own_size_sharpness_distance": self.sized.own_size.sharpness_distance,
            "half_size_sharpness_distance": self.sized.half_size.sharpness_distance,
            "mean_image_ssim": self.mean_image_ssim,
            "distortion": self.distortion,
            "active_units": self.active_units,
            **asdict(self.posterior),
            **asdict(self.frechet),
            "prior_draws": None if self.draws is None else self.draws.to_json_object(),
        }


def measure(
    bundle: BundleModel,
    sample: TestSample,
    *,
    classifier: FeatureClassifier | None,
    nearest: NearestImages,
    seed: int = 0,
    is_shown: bool = True,
) -> ModelReport:
    """Measure a model on test images.

    Args:
        bundle: The model.
        sample: The test images.
        classifier: For Fréchet distances and accuracy. None: they are not measured.
        nearest: The training images, for those that are nearest to draws from the prior.
        seed: The seed of the posterior draw of each image, and of the draws from the prior.
        is_shown: Whether the report shows pictures of the model.
    """
    noise = np.random.default_rng(seed)
    mean_NZ, log_variance_NZ = bundle.encode(sample.images)
    reconstructions = bundle.decode(mean_NZ)
    draws = None
    if log_variance_NZ is None:
        distortion = float(bundle.distortion(sample.images, mean_NZ).mean(dtype=np.float64))
        posterior = PosteriorFigures(bits_per_dim_missing=_no_bits(bundle.manifest, sample))
    else:
        noise_NZ = noise.standard_normal(mean_NZ.shape, dtype=np.float32)
        latent_NZ = mean_NZ + np.exp(0.5 * log_variance_NZ) * noise_NZ
        distortion = float(bundle.distortion(sample.images, latent_NZ).mean(dtype=np.float64))
        posterior = _posterior_figures(
            mean_NZ,
            log_variance_NZ,
            distortion,
            num_values=bundle.manifest.image.num_values,
            no_bits=_no_bits(bundle.manifest, sample),
        )
        draws = nearest.of(_prior_draws(bundle, NUM_SEARCHED, seed=seed), shown=len(sample.shown))
    frechet = FrechetFigures()
    if classifier is not None and sample.labels is not None:
        samples_distance = None
        if log_variance_NZ is not None:
            prior = _prior_draws(bundle, len(sample.images), seed=seed)
            samples_distance = classifier.distance(prior)
        frechet = FrechetFigures(
            frechet_reconstructions=classifier.distance(reconstructions),
            frechet_samples=samples_distance,
            accuracy=classifier.network.accuracy(reconstructions, sample.labels),
        )
    quality = reconstruction_quality(sample.images, reconstructions)
    rate_Z = np.array(posterior.rate_per_dimension)
    shown_NZ, shown = mean_NZ[sample.shown], sample.images[sample.shown]
    return ModelReport(
        bundle=bundle,
        quality=quality,
        sized=sized_sharpness(sample.images, reconstructions, sample.halvings, quality),
        mean_image_ssim=sample.mean_image_ssim,
        distortion=distortion,
        active_units=int((mean_NZ.var(axis=0, dtype=np.float64) > ACTIVE_VARIANCE).sum()),
        posterior=posterior,
        frechet=frechet,
        reconstructions=reconstructions[sample.shown],
        draws=draws,
        traversals=traversals(bundle, mean_NZ, rate_Z, start=int(sample.shown[0])) if is_shown else [],
        interpolations=interpolations(bundle, shown_NZ, shown) if is_shown else [],
    )


def _prior_draws(bundle: BundleModel, count: int, *, seed: int) -> NDArray[np.uint8]:
    """Return decoded draws from the prior; fewer draws are the first ones of more."""
    # Not the stream of the posterior draws.
    noise = np.random.default_rng([seed, 1])
    prior_NZ = noise.standard_normal((count, bundle.manifest.latent_dim), dtype=np.float32)
    return bundle.decode(prior_NZ)


def _no_bits(manifest: Manifest, sample: TestSample) -> str:
    return no_bits_reason(
        manifest.likelihood.name,
        images_are_binary=is_binary(sample.images),
        has_rate=manifest.has_log_variance,
    )


def _posterior_figures(
    mean_NZ: NDArray[np.float32],
    log_variance_NZ: NDArray[np.float32],
    distortion: float,
    *,
    num_values: int,
    no_bits: str,
) -> PosteriorFigures:
    log_variance = torch.from_numpy(log_variance_NZ).double()
    rate_Z = kl_to_prior(torch.from_numpy(mean_NZ).double(), log_variance).mean(0)
    rate = float(rate_Z.sum())
    elbo = -(distortion + rate)
    return PosteriorFigures(
        rate=rate,
        elbo=elbo,
        bits_per_dim=None if no_bits else bits_per_dim(elbo, num_values),
        bits_per_dim_missing=no_bits,
        deviation=float((0.5 * log_variance).exp().mean()),
        rate_per_dimension=tuple(rate_Z.tolist()),
    )
