"""The bound on validation images during training, of the averaged weights."""

import math

import numpy as np
import torch
from numpy.typing import NDArray

from convvae_trainer.evaluation.binarization import encoder_input
from convvae_trainer.evaluation.bound import BoundAccumulator, most_likely_log_sigma
from convvae_trainer.evaluation.inference import posterior_draws
from convvae_trainer.step.train_state import TrainState

__all__ = ["validation_terms"]


@torch.no_grad()
def validation_terms(
    train_state: TrainState, images_NHWC: NDArray[np.uint8], *, binarize: str, seed: int = 0
) -> dict[str, float]:
    """Return `elbo`, `distortion` and `rate` in nats per image; of an autoencoder the distortion alone.

    They are computed as `evaluate` does, with one posterior draw for each image and in float32, and change no
    state of the run. A sigma that is fitted after the training is the most likely one on these images.

    Args:
        train_state: Networks and likelihood.
        images_NHWC: uint8 images.
        binarize: `dynamic` draws the images to 0 and 255 first, always the same way.
        seed: The seed of the posterior draws.
    """
    images_NHWC = encoder_input(images_NHWC, binarize=binarize)
    bound, squared_error = BoundAccumulator(train_state), 0.0
    fits_sigma = train_state.objective.fits_sigma
    with train_state.ema.swapped_in():
        for draws in posterior_draws(train_state, images_NHWC, seed=seed):
            bound.add(draws)
            if fits_sigma:
                squared_error += (draws.pixel_mean - draws.images).square().double().sum().item()
        metrics = bound.metrics()
    distortion = metrics.distortion
    if fits_sigma:
        distortion = _gaussian_distortion(squared_error / images_NHWC.size) * images_NHWC[0].size
    if metrics.rate is None:
        return {"distortion": distortion}
    return {"elbo": -(distortion + metrics.rate), "distortion": distortion, "rate": metrics.rate}


def _gaussian_distortion(squared_error: float) -> float:
    """Return -log p of a pixel under the most likely Gaussian, from its mean squared error."""
    log_sigma = most_likely_log_sigma(squared_error)
    return 0.5 * (math.log(2 * math.pi) + squared_error * math.exp(-2 * log_sigma)) + log_sigma
