"""Likelihoods and the bound, against closed forms."""

import math

import pytest
import torch
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import Distribution, Normal, kl_divergence

from convvae_trainer.config import Config
from convvae_trainer.likelihood import PROBABILITY_CLAMP, Bernoulli, Gaussian, make_likelihood
from convvae_trainer.model import ConvVAE
from convvae_trainer.objective import elbo_terms, kl_to_prior, reparameterise

SHAPE = (5, 3, 6, 4)


@pytest.fixture
def output() -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)) * 3


@pytest.fixture
def x() -> torch.Tensor:
    return torch.rand(SHAPE, generator=torch.Generator().manual_seed(2))


def log_prob(distribution: Distribution, x: torch.Tensor) -> torch.Tensor:
    value: torch.Tensor = distribution.log_prob(x)
    return value


def test_bernoulli_is_the_distribution(output: torch.Tensor, x: torch.Tensor) -> None:
    """On binary pixels both forms equal torch.distributions, summed over pixels."""
    binary = x.round()
    expected = -log_prob(TorchBernoulli(logits=output), binary).flatten(1).sum(1)
    likelihood = Bernoulli()
    torch.testing.assert_close(likelihood.distortion(output, binary), expected)
    mean = likelihood.pixel_mean(output)
    torch.testing.assert_close(likelihood.evaluated_distortion(mean, binary), expected)


def test_bernoulli_takes_grey_levels(output: torch.Tensor, x: torch.Tensor) -> None:
    """On grey levels it is the cross-entropy, the expectation over binary draws."""
    p = output.sigmoid()
    expected = -(x * p.log() + (1 - x) * (1 - p).log()).flatten(1).sum(1)
    torch.testing.assert_close(Bernoulli().distortion(output, x), expected)


def test_bernoulli_is_clamped_in_evaluation_only() -> None:
    """A certain, wrong pixel costs -log of the clamp in evaluation, and more in training."""
    output, x = torch.full((1, 1, 1, 1), -100.0), torch.ones(1, 1, 1, 1)
    likelihood = Bernoulli()
    assert likelihood.distortion(output, x).item() == pytest.approx(100)
    evaluated = likelihood.evaluated_distortion(likelihood.pixel_mean(output), x)
    assert evaluated.item() == pytest.approx(-math.log(PROBABILITY_CLAMP))
    assert likelihood.constants().probability_clamp == PROBABILITY_CLAMP


def test_gaussian_is_the_density(output: torch.Tensor, x: torch.Tensor) -> None:
    """The Gaussian is normalised: it equals torch.distributions, constant included, at any sigma."""
    likelihood = Gaussian()
    for sigma in (0.02, 0.25, 0.9):
        with torch.no_grad():
            likelihood.log_sigma.fill_(math.log(sigma))
        expected = -log_prob(Normal(output.sigmoid(), sigma), x).flatten(1).sum(1)
        torch.testing.assert_close(likelihood.distortion(output, x), expected)
        assert likelihood.constants().sigma == pytest.approx(sigma)


def test_sigma_learns_the_error(output: torch.Tensor, x: torch.Tensor) -> None:
    """The learned sigma goes to the root of the mean squared error, where the density is highest."""
    likelihood = Gaussian()
    optimizer = torch.optim.Adam(likelihood.parameters(), lr=0.02)
    for _ in range(300):
        optimizer.zero_grad()
        likelihood.distortion(output, x).mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    best = (output.sigmoid() - x).square().mean().sqrt().item()
    assert likelihood.constants().sigma == pytest.approx(best, rel=1e-3)


def test_sigma_is_bounded() -> None:
    """A perfect fit does not drive sigma to 0, where the density is infinite."""
    likelihood = Gaussian()
    with torch.no_grad():
        likelihood.log_sigma.fill_(-1e9)
    assert likelihood.constants().sigma == pytest.approx(0.1 / 255)


def test_the_rate_is_the_divergence() -> None:
    """The rate equals torch.distributions' KL to the standard normal."""
    mean, log_variance = torch.randn(4, 7), torch.randn(4, 7)
    posterior = Normal(mean, (0.5 * log_variance).exp())
    expected = kl_divergence(posterior, Normal(torch.zeros(()), torch.ones(())))
    torch.testing.assert_close(kl_to_prior(mean, log_variance), expected)


def test_draws_have_the_posteriors_moments() -> None:
    """Reparameterised noise has the posterior's mean and variance."""
    noise = torch.randn(200_000, 1, generator=torch.Generator().manual_seed(0))
    drawn = reparameterise(torch.tensor([[2.0]]), torch.tensor([[math.log(0.25)]]), noise)
    assert drawn.mean().item() == pytest.approx(2, abs=0.01)
    assert drawn.var().item() == pytest.approx(0.25, rel=0.02)


@pytest.mark.parametrize("name", ["bernoulli", "gaussian"])
def test_terms_stay_float32_under_bf16(name: str) -> None:
    """The networks may compute in bf16; distortion and rate are what float32 gives of their outputs."""
    torch.manual_seed(0)
    config = Config(dataset="x", width=4, hidden=8, latent_dim=3)
    model, likelihood = ConvVAE(config, height=8, width=8, channels=1), make_likelihood(name)
    x, noise = torch.rand(6, 1, 8, 8), torch.randn(6, 3)
    exact = elbo_terms(model, likelihood, x, noise)
    rounded = elbo_terms(model, likelihood, x, noise, autocast=torch.bfloat16)
    assert rounded.distortion.dtype == rounded.rate.dtype == torch.float32
    assert rounded.distortion.shape == rounded.rate.shape == (6,)
    torch.testing.assert_close(rounded.distortion, exact.distortion, rtol=0.02, atol=0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mean, log_variance = model.encoder(x)
    latent = reparameterise(mean.double(), log_variance.double(), noise.double()).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model.decoder(latent)
    distortion = likelihood.double().distortion(output.double(), x.double())
    # A step of bf16 is 4e-3.
    torch.testing.assert_close(rounded.distortion.double(), distortion, rtol=1e-5, atol=0)
    rate = kl_to_prior(mean.double(), log_variance.double()).sum(1)
    torch.testing.assert_close(rounded.rate.double(), rate, rtol=1e-5, atol=1e-6)
    assert exact.loss(2.0) == exact.distortion.mean() + 2 * exact.rate.mean()


def test_the_bound_is_the_evidence_of_a_linear_gaussian() -> None:
    """At the exact posterior of a linear Gaussian model, averaged over draws, the ELBO is log p(x)."""
    # x = a z + b + s e, z and e standard normal: p(x) = N(b, a^2 + s^2), and the posterior is Gaussian too.
    a, b, s, x = 0.7, 0.4, 0.3, 0.9
    variance = 1 / (1 + a * a / (s * s))
    mean = variance * a * (x - b) / (s * s)
    noise = torch.randn(400_000, 1, generator=torch.Generator().manual_seed(0))
    drawn = reparameterise(torch.tensor([[mean]]), torch.tensor([[math.log(variance)]]), noise)
    likelihood = Gaussian()
    with torch.no_grad():
        likelihood.log_sigma.fill_(math.log(s))
        pixels = (a * drawn + b)[..., None, None]
        distortion = likelihood.evaluated_distortion(pixels, torch.full_like(pixels, x)).mean().item()
    rate = kl_to_prior(torch.tensor([[mean]]), torch.tensor([[math.log(variance)]])).sum().item()
    evidence = log_prob(Normal(b, math.sqrt(a * a + s * s)), torch.tensor(x)).item()
    assert -(distortion + rate) == pytest.approx(evidence, abs=2e-3)
