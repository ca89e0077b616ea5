"""The variational autoencoder: the evidence lower bound, or the importance-weighted one.

B = batch, C = channels, H and W = height and width, Z = latent dimension, K = importance samples.
"""

from torch import Tensor

from convvae_trainer.objectives.bound import Terms, elbo_terms, importance_weighted_bound, rate_loss
from convvae_trainer.objectives.single_loss import SingleLoss
from convvae_trainer.settings.config import Config

__all__ = ["Vae"]


class Vae(SingleLoss):
    """A variational autoencoder (Kingma and Welling 2013), with the weight beta and free bits on its rate."""

    def loss(self, x_BCHW: Tensor, noise: Tensor, beta: Tensor) -> tuple[Tensor, Terms]:
        """Return the negative bound, or one of its two terms if the settings say so."""
        autocast = self.setup.autocast
        if self.config.importance_samples > 1:
            bound_B, terms = importance_weighted_bound(
                self.model, self.likelihood, x_BCHW, noise, autocast=autocast
            )
            return -bound_B.mean(), terms
        terms = elbo_terms(self.model, self.likelihood, x_BCHW, noise, autocast=autocast)
        distortion = terms.distortion.mean()
        if self.config.terms == "distortion":
            return distortion, terms
        rate = rate_loss(terms, beta=beta, free_bits=self.config.free_bits, average=self.setup.average)
        return rate if self.config.terms == "rate" else distortion + rate, terms

    @classmethod
    def details(cls, config: Config) -> list[str]:
        """Return the weight of the rate or the number of importance samples, and a term that is alone."""
        if config.importance_samples > 1:
            return [f"{config.importance_samples} importance samples"]
        alone = [] if config.terms == "both" else [f"{config.terms} alone"]
        return [f"beta {config.beta:g}", *alone]
