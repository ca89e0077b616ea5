"""The gradients of Larsen et al. 2016, formula by formula, and a comparison of an objective with them.

B = batch, F = features, Z = latent dimension.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Normal, kl_divergence

from convvae_trainer.networks.conv_vae import ConvVAE
from convvae_trainer.networks.discriminator import Discriminator
from convvae_trainer.networks.likelihoods import Gaussian
from convvae_trainer.objectives.adversarial import Adversarial
from convvae_trainer.objectives.base import Gradients, StepSetup
from convvae_trainer.objectives.feature_likelihood import FeatureLikelihood
from convvae_trainer.objectives.noise import NoiseSource
from convvae_trainer.objectives.registry import objective_class
from convvae_trainer.settings.assembly import config_from
from convvae_trainer.settings.config import Config

# Two levels, so that the features are those of a layer in the middle.
HEIGHT, WIDTH, CHANNELS, LATENT_DIM, BATCH = 20, 12, 3, 3, 5
NETWORK_SIZES = {"width": 2, "hidden": 8, "latent_dim": LATENT_DIM}
NORMAL = Normal(torch.tensor(0.0), torch.tensor(1.0))
ByNetwork = dict[str, tuple[Tensor, ...]]
Change = Callable[[Adversarial], object]


@dataclass(kw_only=True)
class Case:
    """The networks and the batch of a step, with the settings that matter."""

    loss: str = "non-saturating"
    weight: float = 0.7
    adaptive: bool = False
    is_later_phase: bool = True
    beta: float = 1.5
    free_bits: float = 0.0
    penalty: float = 0.0

    def __post_init__(self) -> None:
        torch.manual_seed(4)
        config = Config(dataset="x", **NETWORK_SIZES)  # type: ignore[arg-type]
        self.model = ConvVAE(config, height=HEIGHT, width=WIDTH, channels=CHANNELS)
        self.discriminator = Discriminator(height=HEIGHT, width=WIDTH, channels=CHANNELS, base=2)
        self.likelihood = Gaussian()
        self.features = FeatureLikelihood()
        with torch.no_grad():
            self.features.log_sigma.fill_(-0.4)
        self.x = torch.rand(BATCH, CHANNELS, HEIGHT, WIDTH)
        self.noise = torch.randn(BATCH, LATENT_DIM)
        self.prior = torch.randn(BATCH, LATENT_DIM)

    @property
    def parameters(self) -> dict[str, list[nn.Parameter]]:
        networks: dict[str, nn.Module] = {
            "encoder": self.model.encoder,
            "decoder": self.model.decoder,
            "discriminator": self.discriminator,
            "likelihood": self.likelihood,
            "features": self.features,
        }
        return {name: list(network.parameters()) for name, network in networks.items()}


class GivenNoise(NoiseSource):
    """A source of given draws, one after the other."""

    def __init__(self, *draws: Tensor) -> None:
        super().__init__(torch.Generator())
        self.draws = list(draws)

    def normal(self, count: int, *shape: int) -> Tensor:
        draw = self.draws.pop(0)
        assert draw.shape == (count, *shape)
        return draw


def normal_loss(real: Tensor, made: Tensor, log_sigma: Tensor) -> Tensor:
    """Return -log N(real | made, sigma^2), summed over values and averaged over images."""
    density: Distribution = Normal(made, log_sigma.exp())
    log_density = density.log_prob(real)
    return -log_density.flatten(1).sum(1).mean()


def rate(case: Case, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return the weighted divergence from the prior, with the floor of the free bits."""
    divergence = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), NORMAL).mean(0)
    return case.beta * divergence.clamp(min=case.free_bits).sum()


def gan_losses(kind: str, real: Tensor, made: Tensor) -> tuple[Tensor, Tensor]:
    """Return (discrimination, adversarial) as the papers print them, in probabilities."""
    discrimination = -real.sigmoid().log().mean() - (1 - made.sigmoid()).log().mean()
    if kind == "minimax":
        return discrimination, (1 - made.sigmoid()).log().mean()
    return discrimination, -made.sigmoid().log().mean()


def grad(loss: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, parameters, retain_graph=True)


def reconstruct(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """Return (feature distortion, rate, reconstruction) of the batch, image set by image set."""
    mean, log_variance = case.model.encoder(case.x)
    recon = case.model.decoder(mean + case.noise * (0.5 * log_variance).exp()).sigmoid()
    features, _ = case.discriminator(case.x)
    recon_features, _ = case.discriminator(recon)
    feature_distortion = normal_loss(features, recon_features, case.features.log_sigma)
    return feature_distortion, rate(case, mean, log_variance), recon


def slope_penalty(case: Case) -> Tensor:
    """Return half the weighted mean over images of the squared slope of an image's own logit."""
    total = torch.zeros(())
    for x in case.x:
        image = x[None].clone().requires_grad_()
        (slope,) = torch.autograd.grad(case.discriminator(image)[1], image, create_graph=True)
        total = total + slope.square().sum()
    return 0.5 * case.penalty * total / len(case.x)


def expected_vae_gan(case: Case) -> ByNetwork:
    """Return algorithm 1's gradients, each of its formula alone."""
    of = case.parameters
    feature_distortion, weighted_rate, recon = reconstruct(case)
    made = torch.cat((recon, case.model.decoder(case.prior).sigmoid()))
    real_logit, made_logit = case.discriminator(case.x)[1], case.discriminator(made)[1]
    discrimination, adversarial = gan_losses(case.loss, real_logit, made_logit)
    recon_part, adversarial_part = grad(feature_distortion, of["decoder"]), grad(adversarial, of["decoder"])
    weight = torch.tensor(case.weight if case.is_later_phase else 0.0)
    if case.adaptive:
        kernel = max(index for index, parameter in enumerate(of["decoder"]) if parameter.dim() == 4)
        weight = weight * recon_part[kernel].norm() / adversarial_part[kernel].norm()
    return {
        "encoder": grad(weighted_rate + feature_distortion, of["encoder"]),
        "decoder": tuple(r + weight * a for r, a in zip(recon_part, adversarial_part, strict=True)),
        "discriminator": grad(discrimination + slope_penalty(case), of["discriminator"]),
        "features": grad(feature_distortion, of["features"]),
        "likelihood": grad(normal_loss(case.x, recon, case.likelihood.log_sigma), of["likelihood"]),
    }


def expected_vae_disl(case: Case) -> ByNetwork:
    """Return the gradients of a VAE on features; the discriminator has none."""
    of = case.parameters
    feature_distortion, weighted_rate, recon = reconstruct(case)
    return {
        "encoder": grad(weighted_rate + feature_distortion, of["encoder"]),
        "decoder": grad(feature_distortion, of["decoder"]),
        "features": grad(feature_distortion, of["features"]),
        "likelihood": grad(normal_loss(case.x, recon, case.likelihood.log_sigma), of["likelihood"]),
    }


def expected_gan(case: Case) -> ByNetwork:
    """Return the gradients of a GAN; encoder and likelihood have none."""
    of = case.parameters
    made = case.model.decoder(case.prior).sigmoid()
    real_logit, made_logit = case.discriminator(case.x)[1], case.discriminator(made)[1]
    discrimination, adversarial = gan_losses(case.loss, real_logit, made_logit)
    return {
        "decoder": grad(adversarial, of["decoder"]),
        "discriminator": grad(discrimination + slope_penalty(case), of["discriminator"]),
    }


def assert_same(actual: ByNetwork, expected: ByNetwork) -> None:
    """Fail unless the same networks have the same gradients."""
    assert actual.keys() == expected.keys()
    for name, gradients in expected.items():
        assert any(bool(gradient.any()) for gradient in gradients), f"{name}: nothing to compare"
        scale = max(float(gradient.abs().max()) for gradient in gradients)
        for ours, theirs in zip(actual[name], gradients, strict=True):
            # The message names the network that differs.
            assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5 * scale), name


def gradients_of_case(name: str, case: Case, change: Change | None = None) -> Gradients:
    """Return the gradients that an objective has for a case; `change` is applied to the objective first."""
    settings = {"adversarial_loss": case.loss, "free_bits": case.free_bits, "discriminator_width": 2}
    settings["gradient_penalty"] = case.penalty
    if name == "vae-gan":
        settings |= {"adversarial_weight": case.weight, "adaptive_weight": case.adaptive}
    config = config_from({"dataset": "x", "objective": name, **NETWORK_SIZES}, settings)
    setup = StepSetup(device=torch.device("cpu"))
    objective = objective_class(name)(
        config, case.model, case.likelihood, shape=(HEIGHT, WIDTH, CHANNELS), setup=setup
    )
    assert isinstance(objective, Adversarial)
    objective.discriminator.load_state_dict(case.discriminator.state_dict())
    objective.features.load_state_dict(case.features.state_dict())
    if change is not None:
        change(objective)
    return objective.gradients(
        case.x,
        noise=GivenNoise(case.noise, case.prior),
        beta=torch.tensor(case.beta),
        is_later_phase=case.is_later_phase,
    )


def check_vae_gan(case: Case, change: Change | None = None) -> None:
    """Fail unless VAE/GAN has the gradients of algorithm 1."""
    assert_same(gradients_of_case("vae-gan", case, change).by_network, expected_vae_gan(case))


def check_vae_disl(case: Case, change: Change | None = None) -> None:
    """Fail unless the second phase of VAE_Dis_l has the gradients of a VAE on features."""
    assert_same(gradients_of_case("vae-disl", case, change).by_network, expected_vae_disl(case))


def check_gan(case: Case, change: Change | None = None) -> None:
    """Fail unless the first phase of VAE_Dis_l has the gradients of a GAN."""
    case.is_later_phase = False
    assert_same(gradients_of_case("vae-disl", case, change).by_network, expected_gan(case))
