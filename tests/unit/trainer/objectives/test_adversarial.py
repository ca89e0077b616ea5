"""Adversarial losses by hand, and the gradient of each network by the formulas of Larsen et al. 2016."""

import math
from typing import Any

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from convvae_trainer.objectives.adversarial import adversarial_losses
from convvae_trainer.objectives.vae_gan import MAX_ADAPTIVE_WEIGHT, adaptive_weight
from support.adversarial_formulas import NORMAL, Case, check_gan, check_vae_disl, check_vae_gan

LOSSES = ("non-saturating", "minimax")


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"adaptive": True},
        {"is_later_phase": False},
        {"free_bits": 0.02},
        {"weight": 3.0, "beta": 0.5},
        {"penalty": 4.0},
    ],
    ids=str,
)
def test_vae_gan_routes_as_the_paper_does(loss: str, settings: dict[str, Any]) -> None:
    """Each network's gradient is that of its own formula, whatever the settings."""
    check_vae_gan(Case(loss=loss, **settings))


@pytest.mark.parametrize("settings", [{}, {"free_bits": 0.02}, {"beta": 0.0}], ids=str)
def test_vae_disl_leaves_the_discriminator_alone(settings: dict[str, Any]) -> None:
    """Encoder and decoder follow the features' distortion; the discriminator has no gradient."""
    check_vae_disl(Case(**settings))


@pytest.mark.parametrize("loss", LOSSES)
def test_a_gan_trains_two_networks(loss: str) -> None:
    """In the first phase of VAE_Dis_l decoder and discriminator have gradients, and no other network."""
    check_gan(Case(loss=loss))
    check_gan(Case(loss=loss, penalty=4.0))


def test_the_free_bits_above_hold_some_dimensions_down() -> None:
    """The floor in the cases above lies between the rates, so that it matters there."""
    case = Case()
    mean, log_variance = case.model.encoder(case.x)
    divergence = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), NORMAL).mean(0)
    assert (divergence < 0.02).any()
    assert (divergence > 0.02).any()


def test_losses_are_those_of_the_papers() -> None:
    """Every loss equals its formula, worked out by hand for two real and three made logits."""
    real, made = torch.tensor([0.5, -2.0]), torch.tensor([1.5, 0.0, -3.0])
    p_real = [1 / (1 + math.exp(-value)) for value in real.tolist()]
    p_made = [1 / (1 + math.exp(-value)) for value in made.tolist()]
    cross_entropy = -sum(map(math.log, p_real)) / 2 - sum(math.log(1 - p) for p in p_made) / 3
    expected = {
        "non-saturating": (cross_entropy, -sum(map(math.log, p_made)) / 3),
        "minimax": (cross_entropy, sum(math.log(1 - p) for p in p_made) / 3),
    }
    for kind, values in expected.items():
        found = [loss.item() for loss in adversarial_losses(kind, real, made)]
        assert found == pytest.approx(values, rel=1e-6), kind


@pytest.mark.parametrize(("kind", "slope"), [("non-saturating", -1.0), ("minimax", 0.0)])
def test_a_lost_decoder_still_learns(kind: str, slope: float) -> None:
    """Where the discriminator is certain, only the paper's own loss has no gradient left."""
    made = torch.tensor([-40.0], requires_grad=True)
    _, loss = adversarial_losses(kind, torch.tensor([40.0]), made)
    assert torch.autograd.grad(loss, made)[0].item() == pytest.approx(slope, abs=1e-6)
    for value in (-1e4, 1e4):
        extreme = torch.tensor([value], requires_grad=True)
        for loss in adversarial_losses(kind, -extreme, extreme):
            assert torch.isfinite(torch.autograd.grad(loss, extreme)[0]).all()


def test_the_adaptive_weight_levels_the_gradients() -> None:
    """Times the weight, the adversarial gradient is as long as the other; the weight has a limit."""
    recon_grad, adv_grad = torch.tensor([3.0, 4.0]), torch.tensor([0.0, 0.5])
    assert adaptive_weight(recon_grad, adv_grad).item() == pytest.approx(10)
    assert adaptive_weight(recon_grad, torch.zeros(2)).item() == MAX_ADAPTIVE_WEIGHT
