"""VAE/GAN: a VAE and a GAN that share the decoder (Larsen et al. 2016, algorithm 1).

The losses of the networks:

    encoder          rate + feature distortion
    decoder          feature distortion + weight * adversarial
    features         feature distortion
    discriminator    discrimination + penalty on its slope, where the run has one
    likelihood       distortion of pixels; its sigma alone follows it

The weight is 1 / gamma of the paper. B = batch, C = channels, H and W = height and width, F = features,
Z = latent dimension.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from convvae_trainer.objectives.adversarial import Adversarial, adversarial_losses
from convvae_trainer.objectives.base import Gradients, gradients_of
from convvae_trainer.objectives.bound import Terms, rate_loss, reparameterise
from convvae_trainer.objectives.noise import NoiseSource
from convvae_trainer.settings.config import Config

__all__ = ["MAX_ADAPTIVE_WEIGHT", "Outputs", "VaeGan", "VaeGanLosses", "adaptive_weight"]

MAX_ADAPTIVE_WEIGHT = 1e4


@dataclass(frozen=True, kw_only=True, slots=True)
class Outputs:
    """The outputs of the networks for a batch. Fake images are reconstructions and draws from the prior."""

    images: Tensor
    terms: Terms
    real_features: Tensor
    recon_features: Tensor
    real_logit: Tensor
    fake_logit: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class VaeGanLosses:
    """The scalar losses of a step. `encoding` is the rate plus the feature distortion."""

    encoding: Tensor
    feature_distortion: Tensor
    pixel_distortion: Tensor
    adversarial: Tensor
    discrimination: Tensor
    slope_penalty: Tensor


class VaeGan(Adversarial):
    """A VAE/GAN. Until `adversarial_start` of the run the decoder gets no adversarial gradient."""

    figures = ("adversarial", "discrimination", "feature_distortion", "adversarial_weight")

    @classmethod
    def later_phase_start(cls, config: Config) -> float:
        """Return the fraction after which the decoder gets the adversarial gradient."""
        return config.adversarial_start

    def gradients(
        self, x_BCHW: Tensor, *, noise: NoiseSource, beta: Tensor, is_later_phase: bool
    ) -> Gradients:
        """Return the gradients of algorithm 1."""
        noise_BZ = noise.normal(len(x_BCHW), self.config.latent_dim)
        prior_BZ = noise.normal(len(x_BCHW), self.config.latent_dim)
        outputs = self.forward(x_BCHW, noise_BZ, prior_BZ)
        return self.backward(self.losses(outputs, beta), outputs.terms, is_later_phase=is_later_phase)

    def forward(self, x_BCHW: Tensor, noise_BZ: Tensor, prior_BZ: Tensor) -> Outputs:
        """Run all networks on a batch."""
        count = len(x_BCHW)
        x_BCHW = self.with_slope(x_BCHW)
        with self.setup.autocasting():
            mean_BZ, log_variance_BZ = self.encode(x_BCHW)
            latent_BZ = reparameterise(mean_BZ, log_variance_BZ, noise_BZ)
            fake_BCHW = self.generated(torch.cat((latent_BZ, prior_BZ)))
            features, logit = self.discriminate(torch.cat((x_BCHW, fake_BCHW)))
        return Outputs(
            images=x_BCHW,
            terms=self.pixel_terms(x_BCHW, fake_BCHW[:count], mean_BZ, log_variance_BZ),
            real_features=features[:count],
            recon_features=features[count : 2 * count],
            real_logit=logit[:count],
            fake_logit=logit[count:],
        )

    def losses(self, outputs: Outputs, beta: Tensor) -> VaeGanLosses:
        """Return the losses of a batch."""
        discrimination, adversarial = adversarial_losses(
            self.config.adversarial_loss, outputs.real_logit, outputs.fake_logit
        )
        distortion_B = self.features.distortion(outputs.real_features, outputs.recon_features)
        feature_distortion = distortion_B.mean()
        rate = rate_loss(
            outputs.terms, beta=beta, free_bits=self.config.free_bits, average=self.setup.average
        )
        return VaeGanLosses(
            encoding=rate + feature_distortion,
            feature_distortion=feature_distortion,
            pixel_distortion=outputs.terms.distortion.mean(),
            adversarial=adversarial,
            discrimination=discrimination,
            slope_penalty=self.slope_penalty(outputs.real_logit, outputs.images),
        )

    def backward(self, losses: VaeGanLosses, terms: Terms, *, is_later_phase: bool) -> Gradients:
        """Return the gradient of each network."""
        decoder_parameters = self.parameters("decoder")
        encoder, recon, features = gradients_of(
            losses.encoding, self.parameters("encoder"), decoder_parameters, self.parameters("features")
        )
        (adversarial,) = gradients_of(losses.adversarial, decoder_parameters)
        (discriminator,) = gradients_of(
            losses.discrimination + losses.slope_penalty, self.parameters("discriminator")
        )
        (likelihood,) = gradients_of(losses.pixel_distortion, self.parameters("likelihood"))
        figures = {
            "feature_distortion": losses.feature_distortion.detach(),
            "adversarial": losses.adversarial.detach(),
            "discrimination": losses.discrimination.detach(),
        }
        loss = losses.encoding + losses.adversarial + losses.discrimination + losses.slope_penalty
        loss = loss.detach()
        gradients = (*encoder, *recon, *adversarial, *features, *discriminator, *likelihood)
        self.setup.average([*gradients, *figures.values(), loss])
        weight = self.weight(recon, adversarial, is_later_phase=is_later_phase)
        return Gradients(
            by_network={
                "encoder": encoder,
                "decoder": tuple(r + weight * a for r, a in zip(recon, adversarial, strict=True)),
                "features": features,
                "discriminator": discriminator,
                "likelihood": likelihood,
            },
            loss=loss,
            terms=terms,
            figures={**figures, "adversarial_weight": weight},
        )

    def weight(
        self, recon: Sequence[Tensor], adversarial: Sequence[Tensor], *, is_later_phase: bool
    ) -> Tensor:
        """Return the weight of the decoder's adversarial gradient.

        Args:
            recon: Gradients of the decoder's parameters from the reconstruction.
            adversarial: Gradients of the decoder's parameters from the discriminator.
            is_later_phase: Whether the decoder gets the adversarial gradient yet.
        """
        value = self.config.adversarial_weight if is_later_phase else 0.0
        # Filled on the device: a copy from the host would wait for the device.
        weight = torch.full((), value, device=self.setup.device)
        if not self.config.adaptive_weight:
            return weight
        return weight * adaptive_weight(self._of_output_layer(recon), self._of_output_layer(adversarial))

    def _of_output_layer(self, gradients: Sequence[Tensor]) -> Tensor:
        """Return the gradient of the last layer's weight from those of the decoder's parameters."""
        pairs = zip(self.parameters("decoder"), gradients, strict=True)
        return next(gradient for parameter, gradient in pairs if parameter is self.output_weight)

    @property
    def output_weight(self) -> Tensor:
        """The weight of the decoder's last layer."""
        return self.model.decoder.output_layer.weight


def adaptive_weight(recon_gradient: Tensor, adversarial_gradient: Tensor) -> Tensor:
    """Return the ratio of the gradients' norms, at most 10,000 (Esser et al. 2021, equation 7)."""
    ratio: Tensor = recon_gradient.norm() / (adversarial_gradient.norm() + 1e-8)
    return ratio.clamp(max=MAX_ADAPTIVE_WEIGHT)
