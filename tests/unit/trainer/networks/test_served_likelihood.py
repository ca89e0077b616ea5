"""The trainer's likelihoods and the service's agree: a published model has the same bound in both."""

import math

import numpy as np
import pytest
import torch

from convvae_service.bundle import LikelihoodSpec, distortion, rate
from convvae_trainer.networks.likelihoods import DiscretisedLogistic, PixelLikelihood, make_likelihood
from convvae_trainer.objectives.bound import kl_to_prior


def logistic(scale: float) -> PixelLikelihood:
    likelihood = make_likelihood("discretised-logistic")
    assert isinstance(likelihood, DiscretisedLogistic)
    with torch.no_grad():
        likelihood.log_scale.fill_(math.log(scale))
    return likelihood


@pytest.mark.parametrize(
    ("likelihood", "expected"),
    [
        (make_likelihood("bernoulli"), LikelihoodSpec(name="bernoulli", probability_clamp=1e-6)),
        (make_likelihood("gaussian", sigma=0.07), LikelihoodSpec(name="gaussian", sigma=0.07)),
        (logistic(0.03), LikelihoodSpec(name="discretised-logistic", scale=0.03)),
    ],
)
def test_distortions_are_the_services(likelihood: PixelLikelihood, expected: LikelihoodSpec) -> None:
    """The constants that the manifest states give the service the same distortion."""
    constants = likelihood.constants()
    assert constants.name == expected.name
    for name in ("probability_clamp", "sigma", "scale"):
        value = getattr(expected, name)
        assert getattr(constants, name) == (None if value is None else pytest.approx(value)), name
    random = np.random.default_rng(0)
    images = random.choice(np.array([0, 3, 128, 255], np.uint8), size=(6, 8, 9, 1))
    means = random.random((6, 8, 9, 1), dtype=np.float32)
    means[0] = np.round(means[0])
    with torch.no_grad():
        x = torch.from_numpy(images.astype(np.float32)) / 255
        found = likelihood.evaluated_distortion(torch.from_numpy(means), x)
    np.testing.assert_allclose(found.numpy(), distortion(constants, images, means), rtol=2e-5)


def test_rates_are_the_services() -> None:
    """Sums over the dimensions agree, also where the rate is close to 0."""
    random = np.random.default_rng(0)
    mean, log_variance = random.normal(size=(2, 5, 3)).astype(np.float32)
    mean[0], log_variance[0] = 1e-4, 1e-4
    found = kl_to_prior(torch.from_numpy(mean).double(), torch.from_numpy(log_variance).double()).sum(1)
    np.testing.assert_allclose(found.numpy(), rate(mean, log_variance), rtol=1e-5)
