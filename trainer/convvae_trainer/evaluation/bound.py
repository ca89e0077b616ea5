"""The bound on test images, ELBO = -(distortion + rate), from one posterior draw for each image.

B = batch, N = all images, Z = latent dimension. Figures are in nats per image unless the name says otherwise.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from convvae_trainer.evaluation.bits_per_dim import bits_per_dim, no_bits_reason
from convvae_trainer.evaluation.inference import PosteriorDraws, posterior_draws
from convvae_trainer.networks.likelihoods import LOG_SIGMA_RANGE
from convvae_trainer.objectives.bound import ACTIVE_VARIANCE, kl_to_prior
from convvae_trainer.step.train_state import TrainState

__all__ = ["BoundAccumulator", "BoundMetrics", "fit_sigma", "most_likely_log_sigma"]

# The Gaussian's variance is kept above this, so that its logarithm exists.
MIN_VARIANCE = 1e-12


@dataclass(frozen=True, kw_only=True, slots=True)
class BoundMetrics:
    """Means over the test images. An autoencoder has no rate, ELBO and bits per dimension: they are None.

    `bits_per_dim` is -elbo / (values of an image * ln 2). It is None if the likelihood is no probability of
    the images' pixels, and `bits_per_dim_missing` says why. `active_units` counts the latent dimensions whose
    posterior mean has a variance over the images above 0.01 (Burda et al. 2015, section 5).
    `rate_per_dimension` sums to `rate`. `sigma` is the Gaussian's, for pixels in 0..1.
    """

    elbo: float | None
    distortion: float
    rate: float | None
    bits_per_dim: float | None
    active_units: int
    latent_dim: int
    likelihood: str
    sigma: float | None
    rate_per_dimension: tuple[float, ...]
    posterior_samples: int = 1
    bits_per_dim_missing: str = ""


class BoundAccumulator:
    """Sums distortion and rates of batches, and keeps the posterior means."""

    def __init__(self, train_state: TrainState) -> None:
        self._train_state = train_state
        self._distortion = 0.0
        self._rates: list[torch.Tensor] = []
        self._means: list[torch.Tensor] = []
        self._num_images = 0
        self._num_values = 0
        self._are_binary = True

    def add(self, draws: PosteriorDraws) -> None:
        """Add a batch."""
        likelihood = self._train_state.likelihood
        distortion_B = likelihood.evaluated_distortion(draws.pixel_mean, draws.images)
        self._distortion += distortion_B.double().sum().item()
        self._rates.append(kl_to_prior(draws.mean, draws.log_variance).double().sum(0))
        self._means.append(draws.mean)
        self._num_images += len(draws.images)
        self._num_values = draws.images[0].numel()
        self._are_binary &= bool(((draws.images == 0) | (draws.images == 1)).all())

    def metrics(self) -> BoundMetrics:
        """Return the means over all batches; `sigma` is that of the weights in use."""
        train_state = self._train_state
        distortion = self._distortion / self._num_images
        rate_Z: list[float] = (torch.stack(self._rates).sum(0) / self._num_images).tolist()
        variance_Z = torch.cat(self._means).double().var(0, unbiased=False)
        has_rate = train_state.objective.has_rate
        rate = sum(rate_Z)
        elbo = -(distortion + rate)
        missing = no_bits_reason(
            train_state.likelihood.name, images_are_binary=self._are_binary, has_rate=has_rate
        )
        return BoundMetrics(
            elbo=elbo if has_rate else None,
            distortion=distortion,
            rate=rate if has_rate else None,
            bits_per_dim=None if missing else bits_per_dim(elbo, self._num_values),
            bits_per_dim_missing=missing,
            active_units=int((variance_Z > ACTIVE_VARIANCE).sum().item()),
            latent_dim=train_state.config.latent_dim,
            likelihood=train_state.likelihood.name,
            sigma=train_state.likelihood.constants().sigma,
            rate_per_dimension=tuple(rate_Z) if has_rate else (),
        )


@torch.no_grad()
def fit_sigma(train_state: TrainState, images_NHWC: NDArray[np.uint8], *, seed: int = 0) -> float:
    """Set the Gaussian's sigma to its most likely value on these images, and return it.

    This is the root mean square error of the pixels, with one posterior draw for each image.
    """
    squared_error = 0.0
    with train_state.ema.swapped_in():
        for draws in posterior_draws(train_state, images_NHWC, seed=seed):
            squared_error += (draws.pixel_mean - draws.images).double().square().sum().item()
    log_sigma = most_likely_log_sigma(squared_error / images_NHWC.size)
    train_state.ema.fill("likelihood.log_sigma", log_sigma)
    return math.exp(log_sigma)


def most_likely_log_sigma(squared_error: float) -> float:
    """Return the logarithm of the Gaussian's most likely sigma, from the mean squared error of a pixel."""
    low, high = LOG_SIGMA_RANGE
    return min(max(0.5 * math.log(max(squared_error, MIN_VARIANCE)), low), high)
