"""Likelihoods and bounds, compared with closed forms."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import Distribution, Normal, kl_divergence

from convvae_trainer.networks.conv_vae import ConvVAE
from convvae_trainer.networks.likelihoods import PROBABILITY_CLAMP, Bernoulli, Gaussian, make_likelihood
from convvae_trainer.objectives.bound import (
    elbo_terms,
    importance_weighted_bound,
    kl_to_prior,
    reparameterise,
    weighted_rate,
)
from convvae_trainer.settings.assembly import config_from
from convvae_trainer.settings.config import Config
from convvae_trainer.step.train_state import TrainState

SHAPE = (5, 3, 6, 4)
NORMAL = Normal(torch.tensor(0.0), torch.tensor(1.0))
IMAGES = torch.randint(0, 256, (6, 1, 12, 8), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)


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


def bound_state(**settings: Any) -> TrainState:
    """Return the state of a tiny Gaussian VAE that clips no gradients."""
    values = {"dataset": "x", "width": 2, "hidden": 8, "latent_dim": 4, "likelihood": "gaussian"}
    config = config_from(values, {"max_gradient_norm": 1e12, **settings})
    return TrainState(config, shape=(12, 8, 1), device=torch.device("cpu"))


def modules_of(train_state: TrainState) -> dict[str, nn.Module]:
    return {
        "encoder": train_state.model.encoder,
        "decoder": train_state.model.decoder,
        "likelihood": train_state.likelihood,
    }


def has_gradient(module: nn.Module) -> bool:
    return any(p.grad is not None and bool(p.grad.any()) for p in module.parameters())


def formulas(train_state: TrainState, *samples: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return (distortions, rates (B, Z), log p(z) - log q(z|x)) of the step to come, in torch.distributions.

    Distortions and the last are (B,), or with samples (K, B).
    """
    x = IMAGES.float() / 255
    noise = torch.randn(
        (len(x), *samples, 4), generator=torch.Generator().manual_seed(train_state.config.seed)
    )
    mean, log_variance = train_state.model.encoder(x)
    posterior = Normal(mean, (0.5 * log_variance).exp())
    latent = posterior.mean + posterior.stddev * (noise.movedim(1, 0) if samples else noise)
    output = train_state.model.decoder(latent.flatten(0, -2)).view(*latent.shape[:-1], *x.shape[1:])
    (log_sigma,) = train_state.likelihood.parameters()
    distortion = -log_prob(Normal(output.sigmoid(), log_sigma.exp()), x).flatten(-3).sum(-1)
    log_ratio = (log_prob(NORMAL, latent) - log_prob(posterior, latent)).sum(-1)
    return distortion, kl_divergence(posterior, NORMAL), log_ratio


def assert_step_follows(train_state: TrainState, loss: Tensor, *, beta: float = 1.0) -> None:
    """Fail unless a step takes the gradient of `loss` in every network."""
    expected = {
        name: torch.autograd.grad(loss, list(m.parameters()), retain_graph=True, materialize_grads=True)
        for name, m in modules_of(train_state).items()
    }
    train_state.step(IMAGES, learning_rate=1e-3, beta=beta)
    for name, module in modules_of(train_state).items():
        scale = max(float(gradient.abs().max()) for gradient in expected[name])
        for parameter, wanted in zip(module.parameters(), expected[name], strict=True):
            assert parameter.grad is not None
            assert torch.allclose(parameter.grad, wanted, rtol=1e-3, atol=1e-5 * scale + 1e-12), name


def test_terms_reach_the_networks_that_they_depend_on() -> None:
    """Each value of `terms` has the gradient of its formula; decoder and sigma get none from the rate."""
    for terms in ("both", "distortion", "rate"):
        train_state = bound_state(terms=terms)
        distortion, rates, _ = formulas(train_state)
        rate = 0.7 * rates.mean(0).sum()
        losses = {"both": distortion.mean() + rate, "distortion": distortion.mean(), "rate": rate}
        assert_step_follows(train_state, losses[terms], beta=0.7)
        still = {name for name, module in modules_of(train_state).items() if not has_gradient(module)}
        assert still == ({"decoder", "likelihood"} if terms == "rate" else set())


def test_an_autoencoder_has_the_distortion_alone() -> None:
    """The latent is the encoder's output, and the loss is the distortion of its reconstruction."""
    train_state = bound_state(objective="ae")
    x = IMAGES.float() / 255
    output = train_state.model.decoder(train_state.model.encoder.head(train_state.model.encoder.layers(x)))
    (log_sigma,) = train_state.likelihood.parameters()
    density = log_prob(Normal(output.sigmoid(), log_sigma.exp()), x)
    assert_step_follows(train_state, -density.flatten(1).sum(1).mean())
    means = train_state.step_metrics.means()
    assert (means["elbo"], means["rate"]) == (None, None)
    assert means["distortion"] == pytest.approx(-density.flatten(1).sum(1).mean().item(), rel=1e-5)


def test_free_bits_end_the_gradient_below_the_floor() -> None:
    """A dimension below the floor gets no gradient from its rate; one above gets the whole gradient."""
    mean = torch.tensor([[0.1, 2.0], [0.2, -1.0]], requires_grad=True)
    log_variance = torch.tensor([[0.1, -1.0], [0.0, -2.0]], requires_grad=True)
    rate_Z = kl_to_prior(mean, log_variance).mean(0)
    assert rate_Z[0] < 0.5 < rate_Z[1]
    floored = weighted_rate(rate_Z, beta=2.0, free_bits=0.5)
    assert floored.item() == pytest.approx(2 * (0.5 + rate_Z[1].item()))
    found = torch.autograd.grad(floored, (mean, log_variance), retain_graph=True)
    whole = torch.autograd.grad(2 * rate_Z.sum(), (mean, log_variance))
    for ours, theirs in zip(found, whole, strict=True):
        assert not ours[:, 0].any()
        torch.testing.assert_close(ours[:, 1], theirs[:, 1])


def test_the_floor_is_that_of_the_whole_batch() -> None:
    """Several processes compare their common mean with the floor, not each its own."""
    rate_Z = torch.tensor([0.2, 0.9], requires_grad=True)
    common_Z = torch.tensor([0.6, 0.4])
    floored = weighted_rate(rate_Z, beta=1.0, free_bits=0.5, batch_rate_Z=common_Z)
    assert torch.autograd.grad(floored, rate_Z)[0].tolist() == [1.0, 0.0]


@pytest.mark.parametrize("free_bits", [0.03, 100.0])
def test_a_step_keeps_the_free_bits(free_bits: float) -> None:
    """A step follows the gradient of the floored rate; below a high floor the rate has no gradient."""
    train_state = bound_state(free_bits=free_bits)
    distortion, rates, _ = formulas(train_state)
    rate_Z = rates.mean(0)
    assert (rate_Z < free_bits).any()
    assert (rate_Z > free_bits).any() == (free_bits < 1)
    assert_step_follows(train_state, distortion.mean() + rate_Z.clamp(min=free_bits).sum())


def test_a_step_follows_the_weighted_bound() -> None:
    """With several draws the gradient is that of the logarithm of the mean weight."""
    train_state = bound_state(importance_samples=5)
    distortion, _, log_ratio = formulas(train_state, 5)
    # The weights are e^-30 or so: double keeps them.
    bound = (log_ratio - distortion).double().exp().mean(0).log()
    assert_step_follows(train_state, -bound.mean())


def test_one_importance_sample_is_the_elbo() -> None:
    """With K = 1, value and gradient equal those of the ELBO's estimate with the same draw."""
    train_state = bound_state()
    x = IMAGES[:1].float() / 255
    noise = torch.randn(1, 1, 4)
    bound, terms = importance_weighted_bound(train_state.model, train_state.likelihood, x, noise)
    plain = elbo_terms(train_state.model, train_state.likelihood, x, noise[:, 0])
    torch.testing.assert_close(terms.distortion, plain.distortion)
    torch.testing.assert_close(terms.rates, plain.rates)
    mean, log_variance = train_state.model.encoder(x)
    posterior = Normal(mean, (0.5 * log_variance).exp())
    latent = posterior.mean + posterior.stddev * noise[0]
    estimate = (log_prob(NORMAL, latent) - log_prob(posterior, latent)).sum(1) - plain.distortion
    torch.testing.assert_close(bound, estimate)
    parameters = list(train_state.model.parameters())
    found = torch.autograd.grad(bound.sum(), parameters)
    for ours, theirs in zip(found, torch.autograd.grad(estimate.sum(), parameters), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_the_sampled_rate_has_the_closed_forms_gradient() -> None:
    """On average over draws, log q(z|x) - log p(z) has the gradient of the divergence."""
    mean = torch.tensor([[0.7, -0.2]], requires_grad=True)
    log_variance = torch.tensor([[0.3, -1.0]], requires_grad=True)
    many = torch.randn((200_000, 2), generator=torch.Generator().manual_seed(0))
    posterior = Normal(mean, (0.5 * log_variance).exp())
    latent = mean + many * posterior.stddev
    sampled = (log_prob(posterior, latent) - log_prob(NORMAL, latent)).mean(0).sum()
    closed = kl_to_prior(mean, log_variance).sum()
    for ours, theirs in zip(
        torch.autograd.grad(sampled, (mean, log_variance)),
        torch.autograd.grad(closed, (mean, log_variance)),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0.01)
