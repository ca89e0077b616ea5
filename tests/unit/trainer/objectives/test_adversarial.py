"""Which network gets the gradient of which loss, compared with the formulas of Larsen et al. 2016."""

from typing import Any

import pytest
from torch.distributions import Normal, kl_divergence

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


def test_the_free_bits_above_hold_some_dimensions_down() -> None:
    """The floor in the cases above lies between the rates, so that it matters there."""
    case = Case()
    mean, log_variance = case.model.encoder(case.x)
    divergence = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), NORMAL).mean(0)
    assert (divergence < 0.02).any()
    assert (divergence > 0.02).any()
