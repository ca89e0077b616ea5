"""The ELBO, which is -(distortion + rate), and the importance-weighted bound, in nats per image.

B = batch, K = importance samples, C = channels, H and W = height and width, Z = latent dimension.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from convvae_trainer.networks.likelihoods import PixelLikelihood

__all__ = [
    "ACTIVE_VARIANCE",
    "Average",
    "Networks",
    "Terms",
    "elbo_terms",
    "importance_log_weights",
    "importance_weighted_bound",
    "kl_to_prior",
    "rate_loss",
    "reparameterise",
    "weighted_rate",
]

# A latent is active if the variance of its posterior mean over the images is above this (Burda et al. 2015).
ACTIVE_VARIANCE = 0.01

# Replaces tensors by their means over the processes, in place.
Average = Callable[[Sequence[Tensor]], None]


class Networks(Protocol):
    """A pair of an encoder and a decoder, such as `ConvVAE`."""

    @property
    def encoder(self) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """Images (B, C, H, W) to (mean, log-variance), each (B, Z)."""

    @property
    def decoder(self) -> Callable[[Tensor], Tensor]:
        """Latents (B, Z) to the likelihood's parameter of each pixel (B, C, H, W)."""


@dataclass(frozen=True, slots=True)
class Terms:
    """The distortion (B,) and rates of the latents (B, Z) of a batch in nats, and posterior mean (B, Z)."""

    distortion: Tensor
    rates: Tensor
    mean: Tensor

    @property
    def rate(self) -> Tensor:
        """The rate of each image in nats, of shape (B,)."""
        return self.rates.sum(1)


def kl_to_prior(mean_BZ: Tensor, log_variance_BZ: Tensor) -> Tensor:
    """Return KL(q(z|x) || N(0, 1)) of each latent dimension, of shape (B, Z).

    Kingma and Welling 2013, appendix B.
    """
    return 0.5 * (mean_BZ.square() + log_variance_BZ.exp() - 1 - log_variance_BZ)


def reparameterise(mean_BZ: Tensor, log_variance_BZ: Tensor, noise_BZ: Tensor) -> Tensor:
    """Return draws from the posterior, made of standard normal noise (Kingma and Welling 2013, 2.4)."""
    return mean_BZ + noise_BZ * (0.5 * log_variance_BZ).exp()


def weighted_rate(
    rate_Z: Tensor, *, beta: float | Tensor, free_bits: float, batch_rate_Z: Tensor | None = None
) -> Tensor:
    """Return beta times the sum over dimensions of max(rate, free bits) (Kingma et al. 2016).

    Args:
        rate_Z: Mean rates over the batch of this process.
        beta: Weight of the rate.
        free_bits: Nats per dimension below which a rate has no gradient.
        batch_rate_Z: Mean rates over the batch of all processes, which are compared with `free_bits`.
            None: `rate_Z` is compared.
    """
    if not free_bits:
        return beta * rate_Z.sum()
    compared_Z = (rate_Z if batch_rate_Z is None else batch_rate_Z).detach()
    return beta * torch.where(compared_Z > free_bits, rate_Z, free_bits).sum()


def rate_loss(terms: Terms, *, beta: float | Tensor, free_bits: float, average: Average) -> Tensor:
    """Return the weighted rate of this process's batch. Free bits are decided on the batch of all processes.

    Args:
        terms: The terms of this process's batch.
        beta: Weight of the rate.
        free_bits: Nats per dimension below which a rate has no gradient.
        average: Replaces tensors by their means over the processes.
    """
    rate_Z = terms.rates.mean(0)
    batch_rate_Z = rate_Z.detach().clone()
    if free_bits:
        average([batch_rate_Z])
    return weighted_rate(rate_Z, beta=beta, free_bits=free_bits, batch_rate_Z=batch_rate_Z)


def elbo_terms(
    model: Networks,
    likelihood: PixelLikelihood,
    x_BCHW: Tensor,
    noise_BZ: Tensor,
    *,
    autocast: torch.dtype | None = None,
) -> Terms:
    """Return the terms of the ELBO of a batch, differentiable, with one posterior draw for each image.

    Args:
        model: Encoder and decoder.
        likelihood: The decoder's distribution over pixels.
        x_BCHW: float32 pixels in 0..1.
        noise_BZ: Standard normal draws.
        autocast: dtype in which the networks compute; None for float32. The terms are always float32.
    """
    kind = x_BCHW.device.type
    with torch.autocast(kind, dtype=autocast, enabled=autocast is not None):
        mean_BZ, log_variance_BZ = model.encoder(x_BCHW)
    latent_BZ = reparameterise(mean_BZ, log_variance_BZ, noise_BZ)
    with torch.autocast(kind, dtype=autocast, enabled=autocast is not None):
        output_BCHW = model.decoder(latent_BZ)
    return Terms(
        distortion=likelihood.distortion(output_BCHW, x_BCHW),
        rates=kl_to_prior(mean_BZ, log_variance_BZ),
        mean=mean_BZ,
    )


def importance_log_weights(
    distortion_BK: Tensor, mean_BZ: Tensor, log_variance_BZ: Tensor, noise_BKZ: Tensor
) -> Tensor:
    """Return log p(x|z) + log p(z) - log q(z|x) of draws z, of shape (B, K).

    Args:
        distortion_BK: -log p(x|z).
        mean_BZ: Mean of the posterior.
        log_variance_BZ: Log-variance of the posterior.
        noise_BKZ: Standard normal draws; z = mean + noise * standard deviation.
    """
    latent_BKZ = reparameterise(mean_BZ[:, None], log_variance_BZ[:, None], noise_BKZ)
    # The constants of both normal densities cancel.
    log_prior_BK = -0.5 * latent_BKZ.square().sum(2)
    log_posterior_BK = -0.5 * (noise_BKZ.square() + log_variance_BZ[:, None]).sum(2)
    return log_prior_BK - log_posterior_BK - distortion_BK


def importance_weighted_bound(
    model: Networks,
    likelihood: PixelLikelihood,
    x_BCHW: Tensor,
    noise_BKZ: Tensor,
    *,
    autocast: torch.dtype | None = None,
) -> tuple[Tensor, Terms]:
    """Return the bound, of shape (B,), and the terms, differentiable (Burda et al. 2015, section 3).

    The terms are means over the draws of an image.

    Args:
        model: Encoder and decoder.
        likelihood: The decoder's distribution over pixels.
        x_BCHW: float32 pixels in 0..1.
        noise_BKZ: Standard normal draws, K for each image.
        autocast: dtype in which the networks compute; None for float32.
    """
    kind = x_BCHW.device.type
    batch, samples = noise_BKZ.shape[:2]
    with torch.autocast(kind, dtype=autocast, enabled=autocast is not None):
        mean_BZ, log_variance_BZ = model.encoder(x_BCHW)
    latent_BKZ = reparameterise(mean_BZ[:, None], log_variance_BZ[:, None], noise_BKZ)
    with torch.autocast(kind, dtype=autocast, enabled=autocast is not None):
        output = model.decoder(latent_BKZ.flatten(0, 1))
    repeated = x_BCHW.repeat_interleave(samples, dim=0)
    distortion_BK = likelihood.distortion(output, repeated).view(batch, samples)
    log_weights_BK = importance_log_weights(distortion_BK, mean_BZ, log_variance_BZ, noise_BKZ)
    terms = Terms(distortion=distortion_BK.mean(1), rates=kl_to_prior(mean_BZ, log_variance_BZ), mean=mean_BZ)
    return log_weights_BK.logsumexp(1) - math.log(samples), terms
