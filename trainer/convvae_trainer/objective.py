"""The evidence lower bound, elbo = -(distortion + rate), in nats per image.

B = batch, C = channels, H and W = height and width, Z = latent dimension.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from convvae_trainer.likelihood import Likelihood
from convvae_trainer.model import ConvVAE

__all__ = ["Terms", "elbo_terms", "kl_to_prior", "reparameterise"]


@dataclass(frozen=True, slots=True)
class Terms:
    """The bound's two terms, each of shape (B,), in nats per image."""

    distortion: Tensor
    rate: Tensor

    def loss(self, beta: float) -> Tensor:
        """Return the mean over the batch, the rate weighted."""
        return self.distortion.mean() + beta * self.rate.mean()


def kl_to_prior(mean_BZ: Tensor, log_variance_BZ: Tensor) -> Tensor:
    """Return KL(q(z|x) || N(0, 1)) of each latent dimension, of shape (B, Z)."""
    return 0.5 * (mean_BZ.square() + log_variance_BZ.exp() - 1 - log_variance_BZ)


def reparameterise(mean_BZ: Tensor, log_variance_BZ: Tensor, noise_BZ: Tensor) -> Tensor:
    """Return the draw from the posterior that standard normal `noise_BZ` stands for."""
    return mean_BZ + noise_BZ * (0.5 * log_variance_BZ).exp()


def elbo_terms(
    model: ConvVAE,
    likelihood: Likelihood,
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
        rate=kl_to_prior(mean_BZ, log_variance_BZ).sum(1),
    )


def trainable(model: ConvVAE, likelihood: Likelihood) -> nn.ModuleDict:
    """Return everything that is learned, under the names that checkpoints use."""
    return nn.ModuleDict({"model": model, "likelihood": likelihood})
