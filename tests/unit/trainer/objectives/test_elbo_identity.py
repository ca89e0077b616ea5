"""The identity that the bound stands on, where everything in it is known: a linear Gaussian model.

z ~ N(0, I), x | z ~ N(W z + b, s^2 I). Then log p(x) and p(z|x) are Gaussian too, and for every q

    log p(x) - KL(q || p(z|x)) = E_q[log p(x|z)] - KL(q || p(z)).

D = values of an image, Z = latent dimension, B = draws of q, K = importance samples. All in float64.
"""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution, MultivariateNormal, Normal, kl_divergence

from convvae_trainer.networks.likelihoods import Gaussian
from convvae_trainer.objectives.bound import elbo_terms, importance_weighted_bound, kl_to_prior

SHAPE = (1, 3, 2)
D, Z = 6, 3
DRAWS = 20_000
# A mean of DRAWS draws is further from its expectation than so many standard errors once in 1.7 million.
STANDARD_ERRORS = 5.0


class Identity(Gaussian):
    """The trainer's Gaussian around the decoder's output itself, not around its sigmoid."""

    def pixel_mean(self, output_BCHW: Tensor) -> Tensor:
        return output_BCHW


@dataclass(frozen=True)
class LinearGaussian:
    """A model, an image (D,), and q, which is the encoder's answer; W is (D, Z), q's moments (Z,)."""

    weights: Tensor
    bias: Tensor
    sigma: float
    x: Tensor
    mean: Tensor
    log_variance: Tensor

    def encoder(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        return self.mean.expand(len(x_BCHW), Z), self.log_variance.expand(len(x_BCHW), Z)

    def decoder(self, latent_BZ: Tensor) -> Tensor:
        return (latent_BZ @ self.weights.T + self.bias).view(-1, *SHAPE)

    def images(self, count: int) -> Tensor:
        return self.x.view(1, *SHAPE).expand(count, *SHAPE)

    @property
    def likelihood(self) -> Gaussian:
        made = Identity(self.sigma).double()
        with torch.no_grad():
            made.log_sigma.fill_(math.log(self.sigma))
        return made

    @property
    def q(self) -> MultivariateNormal:
        return MultivariateNormal(self.mean, torch.diag(self.log_variance.exp()))

    @property
    def posterior(self) -> MultivariateNormal:
        precision = torch.eye(Z).double() + self.weights.T @ self.weights / self.sigma**2
        covariance = torch.linalg.inv(precision)
        mean = covariance @ self.weights.T @ (self.x - self.bias) / self.sigma**2
        return MultivariateNormal(mean, (covariance + covariance.T) / 2)

    @property
    def log_evidence(self) -> float:
        covariance = self.weights @ self.weights.T + self.sigma**2 * torch.eye(D).double()
        evidence: Distribution = MultivariateNormal(self.bias, covariance)
        return evidence.log_prob(self.x).item()

    @property
    def expected_log_likelihood(self) -> float:
        """E_q[log p(x|z)] in closed form: that at q's mean, less what q's spread costs."""
        density: Distribution = Normal(self.weights @ self.mean + self.bias, self.sigma)
        spread = (self.weights.square() @ self.log_variance.exp()).sum() / (2 * self.sigma**2)
        return float(density.log_prob(self.x).sum() - spread)

    def with_q(self, mean: Tensor, log_variance: Tensor) -> "LinearGaussian":
        return LinearGaussian(self.weights, self.bias, self.sigma, self.x, mean, log_variance)


def make(seed: int, *, orthogonal: bool = False) -> LinearGaussian:
    """Return a random model and q; with orthogonal columns of W the posterior is of q's family."""
    random = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random).double()

    weights = draw(D, Z)
    if orthogonal:
        weights = torch.linalg.qr(weights).Q * (draw(Z).exp())
    bias, sigma = draw(D), 0.3 + abs(float(draw(1)))
    x = bias + weights @ draw(Z) + sigma * draw(D)
    return LinearGaussian(weights, bias, sigma, x, draw(Z), draw(Z) - 1)


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(11)).double()


def assert_mean(values: Tensor, expected: float) -> None:
    """Fail unless the draws' mean is their expectation, within the standard errors that are stated above."""
    error = values.std().item() / math.sqrt(len(values))
    assert abs(values.mean().item() - expected) <= STANDARD_ERRORS * error + 1e-9


@pytest.mark.parametrize("seed", range(6))
def test_the_identity_holds_in_closed_form(seed: int) -> None:
    """Both sides are equal to 9 digits for any Gaussian q, with the trainer's own divergence on the right."""
    model = make(seed)
    left = model.log_evidence - kl_divergence(model.q, model.posterior).item()
    rate = kl_to_prior(model.mean[None], model.log_variance[None]).sum().item()
    right = model.expected_log_likelihood - rate
    assert left == pytest.approx(right, rel=1e-9)
    prior = MultivariateNormal(torch.zeros(Z).double(), torch.eye(Z).double())
    assert rate == pytest.approx(kl_divergence(model.q, prior).item(), rel=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_the_trainers_terms_are_the_identitys(seed: int) -> None:
    """Over many draws of q the trainer's distortion and rate give both sides of the identity."""
    model = make(seed)
    terms = elbo_terms(model, model.likelihood, model.images(DRAWS), noise(DRAWS, Z))
    assert_mean(-terms.distortion, model.expected_log_likelihood)
    gap = kl_divergence(model.q, model.posterior).item()
    assert_mean(-(terms.distortion + terms.rate), model.log_evidence - gap)
    # The gap is far from the tolerance: a bound without it would be noticed.
    assert gap > 5 * STANDARD_ERRORS * terms.distortion.std().item() / math.sqrt(DRAWS)


@pytest.mark.parametrize("seed", range(4))
def test_the_bound_is_tight_at_the_true_posterior_alone(seed: int) -> None:
    """With q = p(z|x) the ELBO is log p(x); moved, widened or narrowed it is less, by the divergence."""
    model = make(seed, orthogonal=True)
    mean, log_variance = model.posterior.mean, model.posterior.variance.log()
    covariance = model.posterior.covariance_matrix
    torch.testing.assert_close(covariance, torch.diag(covariance.diagonal()))
    exact = model.with_q(mean, log_variance)
    terms = elbo_terms(exact, exact.likelihood, exact.images(DRAWS), noise(DRAWS, Z))
    assert_mean(-(terms.distortion + terms.rate), model.log_evidence)
    deviation = (0.5 * log_variance).exp()
    for other in (
        model.with_q(mean + deviation, log_variance),
        model.with_q(mean, log_variance + 1),
        model.with_q(mean, log_variance - 1),
    ):
        rate = kl_to_prior(other.mean[None], other.log_variance[None]).sum().item()
        gap = kl_divergence(other.q, model.posterior).item()
        assert gap > 0.3
        assert other.expected_log_likelihood - rate == pytest.approx(model.log_evidence - gap, rel=1e-9)


def bounds(model: LinearGaussian, samples: int, *, count: int) -> Tensor:
    drawn = noise(count, samples, Z)
    bound, _ = importance_weighted_bound(model, model.likelihood, model.images(count), drawn)
    return bound


@pytest.mark.parametrize("seed", range(3))
def test_the_weighted_bound_rises_to_the_evidence(seed: int) -> None:
    """It starts at the ELBO, never falls with K, stays below log p(x) and comes close to it."""
    model = make(seed, orthogonal=True)
    spread = (0.5 * model.posterior.variance.log()).exp()
    # Wider than the posterior, as importance sampling wants it, and beside it.
    model = model.with_q(model.posterior.mean + 0.7 * spread, model.posterior.variance.log() + 0.8)
    elbo = model.log_evidence - kl_divergence(model.q, model.posterior).item()
    found = {samples: bounds(model, samples, count=4000) for samples in (1, 2, 5, 25, 125)}
    assert_mean(found[1], elbo)
    means = [values.mean().item() for values in found.values()]
    assert means == sorted(means)
    assert means[1] - means[0] > 0.1
    last = found[125]
    error = last.std().item() / math.sqrt(len(last))
    assert model.log_evidence - 0.02 < last.mean().item() <= model.log_evidence + STANDARD_ERRORS * error


@pytest.mark.parametrize("samples", [1, 7])
def test_one_draw_of_the_true_posterior_is_enough(samples: int) -> None:
    """With q = p(z|x) every weight is p(x): each draw's bound is log p(x), to 9 digits."""
    model = make(1, orthogonal=True)
    exact = model.with_q(model.posterior.mean, model.posterior.variance.log())
    found = bounds(exact, samples, count=50)
    expected = torch.full((50,), model.log_evidence, dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_a_correlated_posterior_leaves_a_gap() -> None:
    """Where W's columns are not orthogonal, no diagonal q is tight: the best misses by its divergence."""
    model = make(4)
    precision = torch.linalg.inv(model.posterior.covariance_matrix)
    best = model.with_q(model.posterior.mean, -precision.diagonal().log())
    gap = kl_divergence(best.q, model.posterior).item()
    assert gap > 0.05
    terms = elbo_terms(best, best.likelihood, best.images(DRAWS), noise(DRAWS, Z))
    assert_mean(-(terms.distortion + terms.rate), model.log_evidence - gap)
    weighted = bounds(best, 200, count=500)
    error = weighted.std().item() / math.sqrt(len(weighted))
    assert weighted.mean().item() == pytest.approx(model.log_evidence, abs=STANDARD_ERRORS * error + 0.03)
