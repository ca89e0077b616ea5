"""VAE_Dis_l: a GAN first, then a VAE whose distortion is measured in a layer of the discriminator.

Larsen et al. 2016, section 4.1. The losses of the networks in each phase:

    GAN    decoder              adversarial
           discriminator        discrimination + penalty on its slope, where the run has one
    VAE    encoder              rate + feature distortion
           decoder, features    feature distortion
           likelihood           distortion of pixels; its sigma alone follows it

B = batch, C = channels, H and W = height and width, F = features, Z = latent dimension.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from convvae_trainer.objectives.adversarial import Adversarial, adversarial_losses
from convvae_trainer.objectives.base import Gradients, Phase, gradients_of
from convvae_trainer.objectives.bound import Terms, rate_loss, reparameterise
from convvae_trainer.objectives.noise import NoiseSource
from convvae_trainer.settings.config import Config

__all__ = ["GAN_RATE", "VaeDisl", "VaeLosses"]

# The learning rate of the GAN, relative to that of the VAE. At the VAE's own rate, reconstructions of 32x32
# digits had 1.6 times the sharpness of the images, from noise; at this rate 1.3 times.
GAN_RATE = 0.25


@dataclass(frozen=True, kw_only=True, slots=True)
class VaeLosses:
    """The scalar losses of the second phase. `encoding` is the rate plus the feature distortion."""

    encoding: Tensor
    feature_distortion: Tensor
    pixel_distortion: Tensor
    terms: Terms


class VaeDisl(Adversarial):
    """A GAN until `gan_share` of the run, then a VAE that leaves the discriminator as it is."""

    figures = ("adversarial", "discrimination", "feature_distortion")

    @classmethod
    def later_phase_start(cls, config: Config) -> float:
        """Return the share of the GAN."""
        return config.gan_share

    @classmethod
    def phases(cls, config: Config) -> tuple[Phase, ...]:
        """Return the GAN, and the VAE, which is a training of its own."""
        return Phase(end=config.gan_share, rate=GAN_RATE), Phase(start=config.gan_share)

    @classmethod
    def encoder_start(cls, config: Config) -> float:
        """Return the share of the GAN, which trains no encoder."""
        return config.gan_share

    def gradients(
        self, x_BCHW: Tensor, *, noise: NoiseSource, beta: Tensor, is_later_phase: bool
    ) -> Gradients:
        """Return the gradients of the GAN in the first phase, of the VAE in the later one."""
        noise_BZ = noise.normal(len(x_BCHW), self.config.latent_dim)
        prior_BZ = noise.normal(len(x_BCHW), self.config.latent_dim)
        if is_later_phase:
            return self.vae_gradients(self.vae_losses(x_BCHW, noise_BZ, beta))
        return self.gan_gradients(*self.gan_losses(x_BCHW, prior_BZ))

    def gan_losses(self, x_BCHW: Tensor, prior_BZ: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return (discrimination, adversarial, slope penalty) of images and of draws from the prior."""
        x_BCHW = self.with_slope(x_BCHW)
        with self.setup.autocasting():
            _, logit = self.discriminate(torch.cat((x_BCHW, self.generated(prior_BZ))))
        real_B, fake_B = logit.chunk(2)
        losses = adversarial_losses(self.config.adversarial_loss, real_B, fake_B)
        return *losses, self.slope_penalty(real_B, x_BCHW)

    def vae_losses(self, x_BCHW: Tensor, noise_BZ: Tensor, beta: Tensor) -> VaeLosses:
        """Return the losses of images and their reconstructions."""
        with self.setup.autocasting():
            mean_BZ, log_variance_BZ = self.encode(x_BCHW)
            recon_BCHW = self.generated(reparameterise(mean_BZ, log_variance_BZ, noise_BZ))
            features, _ = self.discriminate(torch.cat((x_BCHW, recon_BCHW)))
        real_BF, recon_BF = features.chunk(2)
        feature_distortion = self.features.distortion(real_BF, recon_BF).mean()
        terms = self.pixel_terms(x_BCHW, recon_BCHW, mean_BZ, log_variance_BZ)
        rate = rate_loss(terms, beta=beta, free_bits=self.config.free_bits, average=self.setup.average)
        return VaeLosses(
            encoding=rate + feature_distortion,
            feature_distortion=feature_distortion,
            pixel_distortion=terms.distortion.mean(),
            terms=terms,
        )

    def gan_gradients(self, discrimination: Tensor, adversarial: Tensor, penalty: Tensor) -> Gradients:
        """Return the gradients of decoder and discriminator from the losses of the GAN."""
        (decoder,) = gradients_of(adversarial, self.parameters("decoder"))
        (discriminator,) = gradients_of(discrimination + penalty, self.parameters("discriminator"))
        figures = {"adversarial": adversarial.detach(), "discrimination": discrimination.detach()}
        loss = (discrimination + penalty + adversarial).detach()
        self.setup.average([*decoder, *discriminator, *figures.values(), loss])
        return Gradients(
            by_network={"decoder": decoder, "discriminator": discriminator}, loss=loss, figures=figures
        )

    def vae_gradients(self, losses: VaeLosses) -> Gradients:
        """Return the gradients of all networks but the discriminator from the losses of the VAE."""
        networks = ("encoder", "decoder", "features")
        gradients = gradients_of(losses.encoding, *(self.parameters(name) for name in networks))
        (likelihood,) = gradients_of(losses.pixel_distortion, self.parameters("likelihood"))
        by_network = dict(zip(networks, gradients, strict=True)) | {"likelihood": likelihood}
        figures = {"feature_distortion": losses.feature_distortion.detach()}
        loss = losses.encoding.detach()
        flat = [gradient for group in by_network.values() for gradient in group]
        self.setup.average([*flat, *figures.values(), loss])
        return Gradients(by_network=by_network, loss=loss, terms=losses.terms, figures=figures)
