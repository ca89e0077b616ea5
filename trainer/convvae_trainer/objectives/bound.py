"""The bounds of the evidence, in nats per image: elbo = -(distortion + rate), and the weighted one.

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
    "Mean",
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


# A latent whose posterior mean varies more than this over the images is active (Burda et al. 2015).
ACTIVE_VARIANCE = 0.01


Mean = Callable[[Sequence[Tensor]], None]


class Networks(Protocol):
    """What has an encoder and a decoder: `ConvVAE`, or compiled ones."""

    @property
    def encoder(self) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """Images (B, C, H, W) to (mean, log-variance), each (B, Z)."""

    @property
    def decoder(self) -> Callable[[Tensor], Tensor]:
        """Latents (B, Z) to the likelihood's parameter of each pixel (B, C, H, W)."""


@dataclass(frozen=True, slots=True)
class Terms:
    """A batch's distortion (B,), rates of the latents (B, Z), in nats, and posterior mean (B, Z)."""

    distortion: Tensor
    rates: Tensor
    mean: Tensor

    @property
    def rate(self) -> Tensor:
        """Of shape (B,)."""
        return self.rates.sum(1)


def kl_to_prior(mean_BZ: Tensor, log_variance_BZ: Tensor) -> Tensor:
    """Return KL(q(z|x) || N(0, 1)) of each latent dimension, of shape (B, Z).

    Kingma and Welling 2013, appendix B.
    """
    return 0.5 * (mean_BZ.square() + log_variance_BZ.exp() - 1 - log_variance_BZ)


def reparameterise(mean_BZ: Tensor, log_variance_BZ: Tensor, noise_BZ: Tensor) -> Tensor:
    """Return the draw from the posterior that standard normal `noise_BZ` stands for."""
    return mean_BZ + noise_BZ * (0.5 * log_variance_BZ).exp()


def weighted_rate(
    rate_Z: Tensor, *, beta: float | Tensor, free_bits: float, batch_rate_Z: Tensor | None = None
) -> Tensor:
    """Return beta times the sum over dimensions of max(rate, free bits) (Kingma et al. 2016).

    Args:
        rate_Z: Means over this process's batch.
        beta: Weight.
        free_bits: Nats per dimension below which there is nothing to gain.
        batch_rate_Z: Means over the batch of all processes, which decide. None: `rate_Z` does.
    """
    if not free_bits:
        return beta * rate_Z.sum()
    decisive_Z = (rate_Z if batch_rate_Z is None else batch_rate_Z).detach()
    return beta * torch.where(decisive_Z > free_bits, rate_Z, free_bits).sum()


def rate_loss(terms: Terms, *, beta: float | Tensor, free_bits: float, mean: Mean) -> Tensor:
    """Return the weighted rate of this process's batch; the whole batch decides which bits are free.

    Args:
        terms: Of this process's batch.
        beta: Weight.
        free_bits: Nats per dimension below which there is nothing to gain.
        mean: Replaces tensors by their means over the processes.
    """
    rate_Z = terms.rates.mean(0)
    batch_rate_Z = rate_Z.detach().clone()
    if free_bits:
        mean([batch_rate_Z])
    return weighted_rate(rate_Z, beta=beta, free_bits=free_bits, batch_rate_Z=batch_rate_Z)


def elbo_terms(
    model: Networks,
    likelihood: PixelLikelihood,
    x_BCHW: Tensor,
    noise_BZ: Tensor,
    *,
    autocast: torch.dtype | None = None,
) -> Terms:
    """Return distortion and rate of a batch, differentiable.

    Args:
        model: The networks.
        likelihood: Of pixels.
        x_BCHW: float32 in 0..1.
        noise_BZ: Standard normal draws.
        autocast: Type in which the networks compute; None for float32. The terms are float32 always.
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
        mean_BZ: Of the posterior.
        log_variance_BZ: Of the posterior.
        noise_BKZ: Standard normal draws, of which z = mean + noise * deviation.
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
    """Return (bound of shape (B,), its images' mean terms), differentiable (Burda et al. 2015, section 3).

    Args:
        model: The networks.
        likelihood: Of pixels.
        x_BCHW: float32 in 0..1.
        noise_BKZ: Standard normal draws, K for each image.
        autocast: Type in which the networks compute; None for float32.
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
