import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from convvae_service.bundle import LikelihoodSpec, distortion, rate

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (5, 4, 3, 1), np.uint8)
MEANS = RNG.uniform(0.02, 0.98, IMAGES.shape).astype(np.float32)


def test_bernoulli_is_the_log_mass_of_binary_images() -> None:
    """On pixels of 0 and 255 the distortion is the negative log mass of a Bernoulli."""
    binary = np.where(IMAGES > 127, 255, 0).astype(np.uint8)
    expected = -stats.bernoulli.logpmf(binary // 255, MEANS.astype(np.float64)).sum(axis=(1, 2, 3))
    likelihood = LikelihoodSpec(name="bernoulli", probability_clamp=1e-6)
    np.testing.assert_allclose(distortion(likelihood, binary, MEANS), expected, rtol=1e-6)


def test_bernoulli_of_greys_is_the_expected_log_mass() -> None:
    """A grey level g counts as 255 with probability g / 255."""
    likelihood = LikelihoodSpec(name="bernoulli", probability_clamp=1e-6)
    x, p = IMAGES.astype(np.float64) / 255, MEANS.astype(np.float64)
    expected = -(x * np.log(p) + (1 - x) * np.log(1 - p)).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(distortion(likelihood, IMAGES, MEANS), expected, rtol=1e-6)


def test_bernoulli_clamps_certain_probabilities() -> None:
    """A wrong probability of 0 or 1 costs -log(clamp) per pixel, not infinity."""
    likelihood = LikelihoodSpec(name="bernoulli", probability_clamp=1e-3)
    white = np.full((1, 2, 2, 1), 255, np.uint8)
    cost = distortion(likelihood, white, np.zeros((1, 2, 2, 1), np.float32))
    np.testing.assert_allclose(cost, -4 * math.log(1e-3), rtol=1e-6)


def test_gaussian_is_the_log_density() -> None:
    """The distortion contains the density's constant, so that values with different sigma are comparable."""
    expected = -stats.norm.logpdf(IMAGES / 255.0, MEANS.astype(np.float64), 0.2).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(
        distortion(LikelihoodSpec(name="gaussian", sigma=0.2), IMAGES, MEANS), expected, rtol=1e-6
    )


@pytest.mark.parametrize("scale", [0.002, 0.05, 1.0])
def test_discretised_logistic_masses_sum_to_one(scale: float) -> None:
    """The 256 values of a pixel share all the mass, wherever the mean is."""
    values = np.arange(256, dtype=np.uint8).reshape(256, 1, 1, 1)
    for mean in (0.0, 0.31, 1.0):
        means = np.full(values.shape, mean, np.float32)
        masses = np.exp(-distortion(LikelihoodSpec(name="discretised-logistic", scale=scale), values, means))
        assert masses.sum(dtype=np.float64) == pytest.approx(1.0, abs=1e-4)


def test_discretised_logistic_stays_finite_far_from_the_mean() -> None:
    """The far tails keep their precision instead of taking the log of 0."""
    ends = np.array([0, 1, 254, 255], np.uint8).reshape(4, 1, 1, 1)
    means = np.array([1, 1, 0, 0], np.float32).reshape(4, 1, 1, 1)
    cost = distortion(LikelihoodSpec(name="discretised-logistic", scale=0.001), ends, means)
    assert np.isfinite(cost).all()
    assert (cost > 900).all()


@given(st.floats(-4, 4), st.floats(-6, 4))
def test_rate_is_the_divergence_from_the_prior(mean: float, log_variance: float) -> None:
    """The closed form equals the integral, and is never below 0."""
    values = rate(np.array([[mean]], np.float32), np.array([[log_variance]], np.float32))
    sigma = math.exp(0.5 * np.float32(log_variance))
    grid = np.linspace(mean - 12 * sigma, mean + 12 * sigma, 20_001)
    log_q = stats.norm.logpdf(grid, np.float32(mean), sigma)
    integral = np.trapezoid(np.exp(log_q) * (log_q - stats.norm.logpdf(grid)), grid)
    assert values[0] == pytest.approx(integral, rel=1e-4, abs=1e-5)
    assert values[0] >= -1e-6
