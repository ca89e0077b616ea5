"""Which network gets the gradient of which loss: Larsen et al. 2016, formula by formula.

B = batch, F = features, Z = latent dimension.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Normal, kl_divergence

from convvae_trainer.networks.conv_vae import ConvVAE
from convvae_trainer.networks.discriminator import Discriminator
from convvae_trainer.networks.likelihoods import Gaussian
from convvae_trainer.objectives import adversarial
from convvae_trainer.settings.config import Config

# Two levels, so that the features are those of a layer in the middle.
HEIGHT, WIDTH, CHANNELS, LATENT_DIM, BATCH = 20, 12, 3, 3, 5
LOSSES = ("non-saturating", "minimax")
NORMAL = Normal(torch.tensor(0.0), torch.tensor(1.0))
Found = dict[str, tuple[Tensor, ...]]


@dataclass(kw_only=True)
class Game:
    """Networks and batch of a step, with the settings that matter."""

    loss: str = "non-saturating"
    weight: float = 0.7
    adaptive: bool = False
    is_played: bool = True
    beta: float = 1.5
    free_bits: float = 0.0

    def __post_init__(self) -> None:
        torch.manual_seed(4)
        config = Config(dataset="x", width=2, hidden=8, latent_dim=LATENT_DIM)
        self.model = ConvVAE(config, height=HEIGHT, width=WIDTH, channels=CHANNELS)
        self.discriminator = Discriminator(height=HEIGHT, width=WIDTH, channels=CHANNELS, base=2)
        self.likelihood = Gaussian()
        self.features = adversarial.FeatureLikelihood()
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


def normal_loss(real: Tensor, made: Tensor, log_sigma: Tensor) -> Tensor:
    """Return -log N(real | made, sigma^2), summed over values and averaged over images."""
    density: Distribution = Normal(made, log_sigma.exp())
    log_density = density.log_prob(real)
    return -log_density.flatten(1).sum(1).mean()


def rate(game: Game, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return the weighted divergence from the prior, with the floor of the free bits."""
    divergence = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), NORMAL).mean(0)
    return game.beta * divergence.clamp(min=game.free_bits).sum()


def play(kind: str, real: Tensor, made: Tensor) -> tuple[Tensor, Tensor]:
    """Return (discrimination, adversarial) as the papers print them, in probabilities."""
    discrimination = -real.sigmoid().log().mean() - (1 - made.sigmoid()).log().mean()
    if kind == "minimax":
        return discrimination, (1 - made.sigmoid()).log().mean()
    return discrimination, -made.sigmoid().log().mean()


def grad(loss: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, parameters, retain_graph=True)


def rebuild(game: Game) -> tuple[Tensor, Tensor, Tensor]:
    """Return (feature distortion, rate, reconstruction) of the game's batch, image set by image set."""
    mean, log_variance = game.model.encoder(game.x)
    rebuilt = game.model.decoder(mean + game.noise * (0.5 * log_variance).exp()).sigmoid()
    features, _ = game.discriminator(game.x)
    rebuilt_features, _ = game.discriminator(rebuilt)
    feature_distortion = normal_loss(features, rebuilt_features, game.features.log_sigma)
    return feature_distortion, rate(game, mean, log_variance), rebuilt


def expected_vae_gan(game: Game) -> Found:
    """Return algorithm 1's gradients, each of its formula alone."""
    of = game.parameters
    feature_distortion, weighted_rate, rebuilt = rebuild(game)
    made = torch.cat((rebuilt, game.model.decoder(game.prior).sigmoid()))
    real_logit, made_logit = game.discriminator(game.x)[1], game.discriminator(made)[1]
    discrimination, adv_grad = play(game.loss, real_logit, made_logit)
    recon_grad, adversarial_part = grad(feature_distortion, of["decoder"]), grad(adv_grad, of["decoder"])
    weight = torch.tensor(game.weight if game.is_played else 0.0)
    if game.adaptive:
        kernel = max(index for index, parameter in enumerate(of["decoder"]) if parameter.dim() == 4)
        weight = weight * recon_grad[kernel].norm() / adversarial_part[kernel].norm()
    return {
        "encoder": grad(weighted_rate + feature_distortion, of["encoder"]),
        "decoder": tuple(r + weight * p for r, p in zip(recon_grad, adversarial_part, strict=True)),
        "discriminator": grad(discrimination, of["discriminator"]),
        "features": grad(feature_distortion, of["features"]),
        "likelihood": grad(normal_loss(game.x, rebuilt, game.likelihood.log_sigma), of["likelihood"]),
    }


def expected_vae_disl(game: Game) -> Found:
    """Return the gradients of a VAE on features; the discriminator has none."""
    of = game.parameters
    feature_distortion, weighted_rate, rebuilt = rebuild(game)
    return {
        "encoder": grad(weighted_rate + feature_distortion, of["encoder"]),
        "decoder": grad(feature_distortion, of["decoder"]),
        "features": grad(feature_distortion, of["features"]),
        "likelihood": grad(normal_loss(game.x, rebuilt, game.likelihood.log_sigma), of["likelihood"]),
    }


def expected_gan(game: Game) -> Found:
    """Return the gradients of a GAN; encoder and likelihood have none."""
    of = game.parameters
    made = game.model.decoder(game.prior).sigmoid()
    real_logit, made_logit = game.discriminator(game.x)[1], game.discriminator(made)[1]
    discrimination, adv_grad = play(game.loss, real_logit, made_logit)
    return {
        "decoder": grad(adv_grad, of["decoder"]),
        "discriminator": grad(discrimination, of["discriminator"]),
    }


def parts_of(module: Any, game: Game) -> Any:
    return module.GanContext(
        model=game.model,
        discriminator=game.discriminator,
        likelihood=game.likelihood,
        features=game.features,
        parameters=game.parameters,
        loss=game.loss,
        adversarial_weight=game.weight,
        adaptive_weight=game.adaptive,
        autocast=None,
        mean=lambda tensors: None,  # noqa: ARG005 - a single process
    )


def assert_same(found: Found, expected: Found) -> None:
    """Fail unless the same networks have the same gradients."""
    assert found.keys() == expected.keys()
    for name, gradients in expected.items():
        assert any(bool(gradient.any()) for gradient in gradients), f"{name}: nothing to compare"
        scale = max(float(gradient.abs().max()) for gradient in gradients)
        for ours, theirs in zip(found[name], gradients, strict=True):
            # What is compared is named where it differs.
            assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5 * scale), name


def check_vae_gan(module: Any, game: Game) -> None:
    found = module.vae_gan_gradients(
        parts_of(module, game),
        game.x,
        game.noise,
        game.prior,
        beta=game.beta,
        free_bits=game.free_bits,
        is_played=game.is_played,
    )
    assert_same(found.of, expected_vae_gan(game))


def check_vae_disl(module: Any, game: Game) -> None:
    parts = parts_of(module, game)
    found = module.vae_disl_gradients(parts, game.x, game.noise, beta=game.beta, free_bits=game.free_bits)
    assert_same(found.of, expected_vae_disl(game))


def check_gan(module: Any, game: Game) -> None:
    found = module.gan_gradients(parts_of(module, game), game.x, game.prior)
    assert_same(found.of, expected_gan(game))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"adaptive": True},
        {"is_played": False},
        {"free_bits": 0.02},
        {"weight": 3.0, "beta": 0.5},
    ],
    ids=str,
)
def test_vae_gan_routes_as_the_paper_does(loss: str, settings: dict[str, Any]) -> None:
    """Each network's gradient is that of its own formula, whatever the settings."""
    check_vae_gan(adversarial, Game(loss=loss, **settings))


@pytest.mark.parametrize("settings", [{}, {"free_bits": 0.02}, {"beta": 0.0}], ids=str)
def test_vae_disl_leaves_the_discriminator_alone(settings: dict[str, Any]) -> None:
    """Encoder and decoder follow the features' distortion; the discriminator has no gradient."""
    check_vae_disl(adversarial, Game(**settings))


@pytest.mark.parametrize("loss", LOSSES)
def test_a_gan_has_two_players(loss: str) -> None:
    """In the first phase of VAE_Dis_l decoder and discriminator play, and nobody else."""
    check_gan(adversarial, Game(loss=loss))


def test_the_free_bits_above_hold_some_dimensions_down() -> None:
    """The floor in the cases above lies between the rates, so that it matters there."""
    game = Game()
    mean, log_variance = game.model.encoder(game.x)
    divergence = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), NORMAL).mean(0)
    assert (divergence < 0.02).any()
    assert (divergence > 0.02).any()
