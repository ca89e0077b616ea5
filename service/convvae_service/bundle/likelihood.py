"""Distortion and rate of images under a bundle's model, in nats per image.

Dimensions: B = batch, D = values of one image, Z = latent dimension.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from convvae_service.bundle.records import LikelihoodSpec

__all__ = ["distortion", "rate"]

Float = NDArray[np.float64]


def distortion(
    likelihood: LikelihoodSpec, images: NDArray[np.uint8], pixel_mean: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return -log p(x|z) of each image, on pixels in 0..1.

    Args:
        likelihood: The distribution and its constant.
        images: x, uint8, shape (B, ...).
        pixel_mean: Mean of p(x|z) in 0..1, with the same shape.

    Returns:
        float32 array of shape (B,), nats per image.
    """
    x_BD = images.reshape(len(images), -1).astype(np.float64) / 255.0
    mean_BD = pixel_mean.reshape(len(images), -1).astype(np.float64)
    return _DISTORTIONS[likelihood.name](likelihood, x_BD, mean_BD).astype(np.float32)


def rate(mean: NDArray[np.float32], log_variance: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return KL(q(z|x) || N(0, I)) of each row (Kingma and Welling 2013, appendix B).

    Args:
        mean: float32, shape (B, Z).
        log_variance: float32, shape (B, Z).

    Returns:
        float32 array of shape (B,), nats per image.
    """
    mean_BZ, log_variance_BZ = mean.astype(np.float64), log_variance.astype(np.float64)
    kl_BZ = 0.5 * (np.square(mean_BZ) + np.expm1(log_variance_BZ) - log_variance_BZ)
    return np.asarray(kl_BZ.sum(axis=1).clip(min=0.0), np.float32)


def _bernoulli(likelihood: LikelihoodSpec, x_BD: Float, mean_BD: Float) -> Float:
    """Return the cross-entropy: the likelihood for pixels 0 and 1, its expectation for grey levels."""
    clamp = likelihood.probability_clamp
    assert clamp is not None
    p_BD = mean_BD.clip(clamp, 1.0 - clamp)
    return np.asarray(-(x_BD * np.log(p_BD) + (1.0 - x_BD) * np.log1p(-p_BD)).sum(axis=1))


def _gaussian(likelihood: LikelihoodSpec, x_BD: Float, mean_BD: Float) -> Float:
    sigma = likelihood.sigma
    assert sigma is not None
    constant = x_BD.shape[1] * (math.log(sigma) + 0.5 * math.log(2.0 * math.pi))
    return np.asarray(0.5 * np.square((x_BD - mean_BD) / sigma).sum(axis=1) + constant)


def _discretised_logistic(likelihood: LikelihoodSpec, x_BD: Float, mean_BD: Float) -> Float:
    """Return -log of the mass of the 1/255-wide bin around each value (Salimans et al. 2017).

    The first and last bin include the tails.
    """
    scale = likelihood.scale
    assert scale is not None
    upper_BD = (x_BD - mean_BD + 0.5 / 255.0) / scale
    lower_BD = (x_BD - mean_BD - 0.5 / 255.0) / scale
    log_cdf_upper_BD = np.where(x_BD >= 1.0, 0.0, -np.logaddexp(0.0, -upper_BD))
    log_cdf_lower_BD = np.where(x_BD <= 0.0, -np.inf, -np.logaddexp(0.0, -lower_BD))
    # In the upper tail both are near 0. The survival functions keep their precision there.
    log_survival_lower_BD = np.where(x_BD <= 0.0, 0.0, -np.logaddexp(0.0, lower_BD))
    log_survival_upper_BD = np.where(x_BD >= 1.0, -np.inf, -np.logaddexp(0.0, upper_BD))
    with np.errstate(divide="ignore"):
        from_below = log_cdf_upper_BD + np.log1p(-np.exp(log_cdf_lower_BD - log_cdf_upper_BD))
        from_above = log_survival_lower_BD + np.log1p(-np.exp(log_survival_upper_BD - log_survival_lower_BD))
    return np.asarray(-np.where(x_BD > mean_BD, from_above, from_below).sum(axis=1))


_DISTORTIONS: dict[str, Callable[[LikelihoodSpec, Float, Float], Float]] = {
    "bernoulli": _bernoulli,
    "gaussian": _gaussian,
    "discretised-logistic": _discretised_logistic,
}
