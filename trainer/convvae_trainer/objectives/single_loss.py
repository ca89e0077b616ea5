"""The base of objectives in which all networks follow one loss.

B = batch, C = channels, H and W = height and width, Z = latent dimension, K = importance samples.
"""

from abc import abstractmethod
from typing import Any

from torch import Tensor

from convvae_trainer.objectives.base import Gradients, Objective, gradients_of
from convvae_trainer.objectives.bound import Terms
from convvae_trainer.objectives.noise import NoiseSource

__all__ = ["SingleLoss"]

_NETWORKS = ("encoder", "decoder", "likelihood")


class SingleLoss(Objective):
    """An objective in which encoder, decoder and likelihood follow the gradient of `loss`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._compiled_loss = self.setup.compile(self.loss)

    @abstractmethod
    def loss(self, x_BCHW: Tensor, noise: Tensor, beta: Tensor) -> tuple[Tensor, Terms]:
        """Return the scalar loss of a batch and its terms, differentiable.

        Args:
            x_BCHW: float32 pixels in 0..1.
            noise: Standard normal draws, of shape (B, Z), or (B, K, Z) if the run has importance samples.
            beta: Weight of the rate.
        """

    def gradients(
        self,
        x_BCHW: Tensor,
        *,
        noise: NoiseSource,
        beta: Tensor,
        is_later_phase: bool,  # noqa: ARG002 - there is one phase
    ) -> Gradients:
        """Return the gradients of `loss`."""
        samples = self.config.importance_samples
        shape = (self.config.latent_dim,) if samples == 1 else (samples, self.config.latent_dim)
        loss, terms = self._compiled_loss(x_BCHW, noise.normal(len(x_BCHW), *shape), beta)
        gradients = gradients_of(loss, *(self.parameters(name) for name in _NETWORKS))
        loss = loss.detach()
        self.setup.average([*(tensor for group in gradients for tensor in group), loss])
        return Gradients(by_network=dict(zip(_NETWORKS, gradients, strict=True)), loss=loss, terms=terms)
