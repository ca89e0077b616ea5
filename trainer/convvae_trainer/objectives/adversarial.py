"""The parts that objectives with a discriminator share (Larsen et al. 2016).

B = batch, C = channels, H and W = height and width, Z = latent dimension.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from convvae_trainer.networks.conv_vae import ConvVAE
from convvae_trainer.networks.discriminator import Discriminator
from convvae_trainer.networks.likelihoods import PixelLikelihood
from convvae_trainer.objectives.base import Objective, ParameterGroup, StepSetup
from convvae_trainer.objectives.bound import Terms, kl_to_prior
from convvae_trainer.objectives.feature_likelihood import FeatureLikelihood
from convvae_trainer.settings.config import Config

__all__ = ["ADVERSARIAL_BETAS", "Adversarial", "adversarial_losses"]

# With more momentum the decoder and the discriminator circle (Radford et al. 2015, section 4).
ADVERSARIAL_BETAS = (0.5, 0.99)


def adversarial_losses(kind: str, real_logit: Tensor, fake_logit: Tensor) -> tuple[Tensor, Tensor]:
    """Return (discrimination, adversarial): the scalar losses of the discriminator and of the decoder.

    Args:
        kind: `non-saturating` (Goodfellow et al. 2014, section 3), or `minimax`, in which the decoder
            maximises the loss of the discriminator.
        real_logit: Logits of images of the data.
        fake_logit: Logits of generated images.
    """
    softplus = nn.functional.softplus
    discrimination = softplus(-real_logit).mean() + softplus(fake_logit).mean()
    if kind == "minimax":
        return discrimination, -softplus(fake_logit).mean()
    return discrimination, softplus(-fake_logit).mean()


class Adversarial(Objective):
    """An objective with a discriminator, one layer of which also measures reconstructions."""

    fits_sigma = True
    optimizers: ClassVar[Mapping[str, tuple[ParameterGroup, ...]]] = {
        "encoder": (
            ParameterGroup(networks=("encoder",)),
            ParameterGroup(networks=("likelihood", "features"), is_scale=True),
        ),
        "decoder": (ParameterGroup(networks=("decoder",), betas=ADVERSARIAL_BETAS),),
        "discriminator": (ParameterGroup(networks=("discriminator",), betas=ADVERSARIAL_BETAS),),
    }

    def __init__(
        self,
        config: Config,
        model: ConvVAE,
        likelihood: PixelLikelihood,
        *,
        shape: tuple[int, int, int],
        setup: StepSetup,
    ) -> None:
        super().__init__(config, model, likelihood, shape=shape, setup=setup)
        height, width, channels = shape
        self.features = FeatureLikelihood().to(setup.device)
        self.discriminator = Discriminator(
            height=height, width=width, channels=channels, base=config.discriminator_width
        ).to(setup.device)
        self.encode = setup.compile(model.encoder)
        self.decode = setup.compile(model.decoder)
        # The penalty differentiates the discriminator twice, which compiled code cannot do.
        is_compiled = not config.gradient_penalty
        self.discriminate = setup.compile(self.discriminator) if is_compiled else self.discriminator

    def extra_networks(self) -> dict[str, nn.Module]:
        """Return the discriminator and the likelihood of its features."""
        return {"features": self.features, "discriminator": self.discriminator}

    def generated(self, latent_BZ: Tensor) -> Tensor:
        """Return the images that the decoder makes of latents, float32 in 0..1, of shape (B, C, H, W)."""
        return self.likelihood.pixel_mean(self.decode(latent_BZ))

    def pixel_terms(
        self, x_BCHW: Tensor, recon_BCHW: Tensor, mean_BZ: Tensor, log_variance_BZ: Tensor
    ) -> Terms:
        """Return the terms of the bound on pixels. The networks get no gradient from this distortion."""
        distortion_B = self.likelihood.evaluated_distortion(recon_BCHW.detach(), x_BCHW)
        return Terms(distortion=distortion_B, rates=kl_to_prior(mean_BZ, log_variance_BZ), mean=mean_BZ)

    def with_slope(self, x_BCHW: Tensor) -> Tensor:
        """Return the images of the data so that `slope_penalty` can differentiate logits by them."""
        return x_BCHW.detach().requires_grad_(self.config.gradient_penalty > 0)

    def slope_penalty(self, real_logit: Tensor, x_BCHW: Tensor) -> Tensor:
        """Return the penalty on the discriminator's slope at images of the data, a scalar.

        It keeps a discriminator that wins from growing ever steeper (R1, Mescheder et al. 2018, equation 9).

        Args:
            real_logit: Logits of the images.
            x_BCHW: The images, from `with_slope`.
        """
        weight = self.config.gradient_penalty
        if not weight:
            return torch.zeros((), device=x_BCHW.device)
        (slope_BCHW,) = torch.autograd.grad(real_logit.sum(), x_BCHW, create_graph=True)
        return 0.5 * weight * slope_BCHW.float().square().flatten(1).sum(1).mean()

    @classmethod
    def details(cls, config: Config) -> list[str]:
        """Return the weight of the rate and the kind of the adversarial loss."""
        return [f"beta {config.beta:g}", f"{config.adversarial_loss} loss"]
