"""docs/training/theory.md is computed, not believed."""

import math
import re
from pathlib import Path

import pytest
import torch

from convvae_trainer.networks.likelihoods import Gaussian
from convvae_trainer.objectives.bound import kl_to_prior

PAGE = (Path(__file__).parents[4] / "docs/training/theory.md").read_text()


def test_the_bound_and_its_gap_add_up(capsys: pytest.CaptureFixture[str]) -> None:
    """The block of the page runs, and its ELBO and gap give log p(x)."""
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(block, {})
    elbo, gap, log_p = map(float, capsys.readouterr().out.split())
    assert gap > 0
    assert elbo + gap == pytest.approx(log_p, abs=2e-4)


def test_a_learned_sigma_settles_at_the_error() -> None:
    """At the mean squared error the distortion is lowest, and n/2 (log(2 pi sigma^2) + 1)."""
    draws = torch.Generator().manual_seed(0)
    x, mean = torch.rand(2, 1, 3, 8, 9, generator=draws)
    sigma = (x - mean).square().mean().sqrt().item()
    best, *others = (
        Gaussian(sigma * factor).evaluated_distortion(mean, x).item() for factor in (1, 0.97, 1.03)
    )
    assert best == pytest.approx(x.numel() / 2 * (math.log(2 * math.pi * sigma**2) + 1), rel=1e-5)
    assert best < min(others)


def test_beta_is_a_larger_sigma() -> None:
    """Distortion + beta rate at sigma has beta times the gradients of the ELBO at sigma times beta's root."""
    draws = torch.Generator().manual_seed(0)
    x, mean = torch.rand(2, 1, 1, 8, 8, generator=draws)
    parameters = [mean.requires_grad_(), *torch.randn(2, 1, 5, generator=draws).requires_grad_()]
    sigma, beta = 0.2, 4.0

    def gradients(sigma: float, beta: float) -> torch.Tensor:
        pixels, latent_mean, log_variance = parameters
        rate = kl_to_prior(latent_mean, log_variance).sum()
        loss = Gaussian(sigma).evaluated_distortion(pixels, x).sum() + beta * rate
        return torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss, parameters)])

    torch.testing.assert_close(gradients(sigma, beta), beta * gradients(sigma * math.sqrt(beta), 1.0))
