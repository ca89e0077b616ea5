"""The likelihood of an image's features in a discriminator (Larsen et al. 2016, section 2.3).

B = batch, F = features.
"""

import math

import torch
from torch import Tensor, nn

from convvae_trainer.networks.likelihoods import bounded

__all__ = ["LOG_SIGMA_RANGE", "FeatureLikelihood"]

LOG_SIGMA_RANGE = (-7.0, 7.0)


class FeatureLikelihood(nn.Module):
    """A Gaussian around the features of a reconstruction, with one learned standard deviation.

    With a standard deviation of 1 it is the paper's distortion up to a constant. A learned one keeps the
    distortion in proportion to the rate while the features of the discriminator grow or shrink.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_sigma = nn.Parameter(torch.tensor(0.0))

    def distortion(self, real_BF: Tensor, recon_BF: Tensor) -> Tensor:
        """Return the negative log-density in nats, of shape (B,).

        Args:
            real_BF: Features of the images.
            recon_BF: Features of their reconstructions.
        """
        log_sigma = bounded(self.log_sigma, *LOG_SIGMA_RANGE)
        squared_B = (real_BF - recon_BF).square().sum(1)
        constant = real_BF.shape[1] * (log_sigma + 0.5 * math.log(2 * math.pi))
        return 0.5 * squared_B * (-2 * log_sigma).exp() + constant
