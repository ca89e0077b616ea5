"""VAE_Dis_l and VAE/GAN: which network gets the gradient of which loss (Larsen et al. 2016, algorithm 1).

    encoder          rate + feature distortion
    decoder          feature distortion + w * adversarial
    discriminator    discrimination
    likelihood       distortion of pixels, of images taken as given: its sigma alone follows it

The feature distortion is -log N(Dis_l(x) | Dis_l(x'), s^2) of a reconstruction x', with one learned s for all
features, so that it keeps its proportion to the rate while the discriminator's features grow or shrink; with
s = 1 it is that of the paper but for a constant. w is 1 / gamma of the paper.

B = batch, C = channels, H and W = height and width, F = features, Z = latent dimension.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from convvae_trainer.networks.likelihoods import PixelLikelihood, bounded
from convvae_trainer.objectives.bound import Mean, Networks, Terms, kl_to_prior, rate_loss, reparameterise

__all__ = [
    "FeatureLikelihood",
    "GanContext",
    "Gradients",
    "adversarial_losses",
    "gan_gradients",
    "gradients_of",
    "vae_disl_gradients",
    "vae_gan_gradients",
]

MAX_ADAPTIVE_WEIGHT = 1e4
LOG_SIGMA_RANGE = (-7.0, 7.0)


class FeatureLikelihood(nn.Module):
    """A Gaussian around a reconstruction's features with one learned standard deviation."""

    def __init__(self) -> None:
        super().__init__()
        self.log_sigma = nn.Parameter(torch.tensor(0.0))

    def distortion(self, real_BF: Tensor, fake_BF: Tensor) -> Tensor:
        """Return the negative log-density of shape (B,), in nats."""
        log_sigma = bounded(self.log_sigma, *LOG_SIGMA_RANGE)
        squared_B = (real_BF - fake_BF).square().sum(1)
        constant = real_BF.shape[1] * (log_sigma + 0.5 * math.log(2 * math.pi))
        return 0.5 * squared_B * (-2 * log_sigma).exp() + constant


@dataclass(frozen=True, kw_only=True, slots=True)
class Gradients:
    """What a batch asks of each network, and what it showed.

    `of` has a gradient for each parameter, by network. `loss` is finite unless the step has to be skipped.
    `terms` is None where no image was encoded.
    """

    of: dict[str, tuple[Tensor, ...]]
    loss: Tensor
    terms: Terms | None = None
    figures: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class GanContext:
    """The networks and settings of an adversarial step; `parameters` are those of each network."""

    model: Networks
    discriminator: Callable[[Tensor], tuple[Tensor, Tensor]]
    likelihood: PixelLikelihood
    features: FeatureLikelihood
    parameters: Mapping[str, list[nn.Parameter]]
    loss: str
    adversarial_weight: float
    adaptive_weight: bool
    autocast: torch.dtype | None
    mean: Mean


def adversarial_losses(kind: str, real_B: Tensor, fake_B: Tensor) -> tuple[Tensor, Tensor]:
    """Return (discrimination, adversarial): means of what discriminator and decoder minimise.

    Args:
        kind: `non-saturating` (Goodfellow et al. 2014, section 3), or `minimax`, in which the decoder
            maximises what the discriminator minimises.
        real_B: Logits of images of the data.
        fake_B: Logits of made ones.
    """
    softplus = nn.functional.softplus
    discrimination = softplus(-real_B).mean() + softplus(fake_B).mean()
    if kind == "minimax":
        return discrimination, -softplus(fake_B).mean()
    return discrimination, softplus(-fake_B).mean()


def gradients_of(loss: Tensor, *parameters: list[nn.Parameter]) -> list[tuple[Tensor, ...]]:
    """Return the gradient of `loss` for each list of parameters, and keep the graph for other losses."""
    flat = [parameter for some in parameters for parameter in some]
    found = torch.autograd.grad(loss, flat, retain_graph=True, materialize_grads=True)
    split: list[tuple[Tensor, ...]] = []
    low = 0
    for some in parameters:
        split.append(found[low : low + len(some)])
        low += len(some)
    return split


def gan_gradients(parts: GanContext, x_BCHW: Tensor, prior_BZ: Tensor) -> Gradients:
    """Return the gradients of a GAN: the decoder makes images of prior draws, no image is encoded."""
    with _autocast(parts, x_BCHW):
        fake_BCHW = parts.likelihood.pixel_mean(parts.model.decoder(prior_BZ))
        _, logit = parts.discriminator(torch.cat((x_BCHW, fake_BCHW)))
    real_B, fake_B = logit.chunk(2)
    discrimination, adversarial = adversarial_losses(parts.loss, real_B, fake_B)
    of = parts.parameters
    (decoder,) = gradients_of(adversarial, of["decoder"])
    (discriminator,) = gradients_of(discrimination, of["discriminator"])
    figures = {"adversarial": adversarial.detach(), "discrimination": discrimination.detach()}
    loss = (discrimination + adversarial).detach()
    parts.mean([*decoder, *discriminator, *figures.values(), loss])
    return Gradients(
        of={"decoder": decoder, "discriminator": discriminator},
        loss=loss,
        figures=figures,
    )


def vae_disl_gradients(
    parts: GanContext, x_BCHW: Tensor, noise_BZ: Tensor, *, beta: float | Tensor, free_bits: float
) -> Gradients:
    """Return the gradients of a VAE whose reconstructions a discriminator, which stays as it is, measures."""
    with _autocast(parts, x_BCHW):
        mean_BZ, log_variance_BZ = parts.model.encoder(x_BCHW)
        latent_BZ = reparameterise(mean_BZ, log_variance_BZ, noise_BZ)
        recon_BCHW = parts.likelihood.pixel_mean(parts.model.decoder(latent_BZ))
        real_BF, recon_BF = parts.discriminator(torch.cat((x_BCHW, recon_BCHW)))[0].chunk(2)
    feature_distortion = parts.features.distortion(real_BF, recon_BF).mean()
    terms = _terms(parts, x_BCHW, recon_BCHW, mean_BZ, log_variance_BZ)
    rate = rate_loss(terms, beta=beta, free_bits=free_bits, mean=parts.mean)
    of = parts.parameters
    encoder, decoder, features = gradients_of(
        rate + feature_distortion, of["encoder"], of["decoder"], of["features"]
    )
    (likelihood,) = gradients_of(terms.distortion.mean(), of["likelihood"])
    loss = (rate + feature_distortion).detach()
    figures = {"feature_distortion": feature_distortion.detach()}
    parts.mean([*encoder, *decoder, *features, *likelihood, *figures.values(), loss])
    return Gradients(
        of={"encoder": encoder, "decoder": decoder, "features": features, "likelihood": likelihood},
        loss=loss,
        terms=terms,
        figures=figures,
    )


def vae_gan_gradients(
    parts: GanContext,
    x_BCHW: Tensor,
    noise_BZ: Tensor,
    prior_BZ: Tensor,
    *,
    beta: float | Tensor,
    free_bits: float,
    is_played: bool,
) -> Gradients:
    """Return the gradients of a VAE/GAN; made images are reconstructions and draws from the prior.

    Until `is_played` the decoder gets no adversarial gradient.
    """
    count = len(x_BCHW)
    with _autocast(parts, x_BCHW):
        mean_BZ, log_variance_BZ = parts.model.encoder(x_BCHW)
        latent_BZ = reparameterise(mean_BZ, log_variance_BZ, noise_BZ)
        fake_BCHW = parts.likelihood.pixel_mean(parts.model.decoder(torch.cat((latent_BZ, prior_BZ))))
        features, logit = parts.discriminator(torch.cat((x_BCHW, fake_BCHW)))
    real_B, fake_B = logit[:count], logit[count:]
    discrimination, adversarial = adversarial_losses(parts.loss, real_B, fake_B)
    feature_distortion = parts.features.distortion(features[:count], features[count : 2 * count]).mean()
    terms = _terms(parts, x_BCHW, fake_BCHW[:count], mean_BZ, log_variance_BZ)
    rate = rate_loss(terms, beta=beta, free_bits=free_bits, mean=parts.mean)
    of = parts.parameters
    encoder, recon_grad, feature_sigma = gradients_of(
        rate + feature_distortion, of["encoder"], of["decoder"], of["features"]
    )
    (adv_grad,) = gradients_of(adversarial, of["decoder"])
    (discriminator,) = gradients_of(discrimination, of["discriminator"])
    (likelihood,) = gradients_of(terms.distortion.mean(), of["likelihood"])
    figures = {
        "feature_distortion": feature_distortion.detach(),
        "adversarial": adversarial.detach(),
        "discrimination": discrimination.detach(),
    }
    loss = (rate + feature_distortion + adversarial + discrimination).detach()
    found = (*encoder, *recon_grad, *adv_grad, *feature_sigma, *discriminator, *likelihood)
    parts.mean([*found, *figures.values(), loss])
    # Made on the device: a copy from the host would wait for it.
    weight = torch.full((), float(parts.adversarial_weight * is_played), device=loss.device)
    if parts.adaptive_weight:
        # Of the last layer's kernel (Esser et al. 2021, equation 7).
        weight = weight * adaptive_weight(recon_grad[-2], adv_grad[-2])
    figures["adversarial_weight"] = weight
    return Gradients(
        of={
            "encoder": encoder,
            "decoder": tuple(r + weight * p for r, p in zip(recon_grad, adv_grad, strict=True)),
            "features": feature_sigma,
            "discriminator": discriminator,
            "likelihood": likelihood,
        },
        loss=loss,
        terms=terms,
        figures=figures,
    )


def adaptive_weight(recon_grad: Tensor, adv_grad: Tensor) -> Tensor:
    """Return how many times larger the first gradient is than the second, at most 10,000."""
    ratio: Tensor = recon_grad.norm() / (adv_grad.norm() + 1e-8)
    return ratio.clamp(max=MAX_ADAPTIVE_WEIGHT)


def _autocast(parts: GanContext, x_BCHW: Tensor) -> torch.autocast:
    return torch.autocast(x_BCHW.device.type, dtype=parts.autocast, enabled=parts.autocast is not None)


def _terms(
    parts: GanContext, x_BCHW: Tensor, recon_BCHW: Tensor, mean_BZ: Tensor, log_variance_BZ: Tensor
) -> Terms:
    """Return the terms of the bound on pixels; the images' own gradient is cut off."""
    distortion_B = parts.likelihood.evaluated_distortion(recon_BCHW.detach(), x_BCHW)
    return Terms(distortion=distortion_B, rates=kl_to_prior(mean_BZ, log_variance_BZ), mean=mean_BZ)
