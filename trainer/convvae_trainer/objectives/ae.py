"""The autoencoder: the distortion alone.

B = batch, C = channels, H and W = height and width, Z = latent dimension.
"""

from torch import Tensor

from convvae_trainer.objectives.bound import Terms, elbo_terms
from convvae_trainer.objectives.single_loss import SingleLoss

__all__ = ["Ae"]


class Ae(SingleLoss):
    """An autoencoder. It encodes an image to a point, so it has no rate and no prior."""

    has_rate = False

    def loss(self, x_BCHW: Tensor, noise: Tensor, beta: Tensor) -> tuple[Tensor, Terms]:  # noqa: ARG002
        """Return the mean distortion. The noise has no effect: the posterior's variance is 0."""
        terms = elbo_terms(self.model, self.likelihood, x_BCHW, noise, autocast=self.setup.autocast)
        return terms.distortion.mean(), terms
