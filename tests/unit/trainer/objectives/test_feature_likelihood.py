"""The likelihood of features: its most likely sigma, and the range of it."""

import math

import pytest
import torch

from convvae_trainer.objectives.feature_likelihood import LOG_SIGMA_RANGE, FeatureLikelihood


def test_the_features_sigma_is_the_likeliest() -> None:
    """Its gradient vanishes at the root of the mean squared difference, and its range holds."""
    torch.manual_seed(0)
    real, made = torch.randn(6, 50), torch.randn(6, 50)
    features = FeatureLikelihood()
    with torch.no_grad():
        features.log_sigma.copy_((real - made).square().mean().sqrt().log())
    (slope,) = torch.autograd.grad(features.distortion(real, made).mean(), features.log_sigma)
    assert slope.item() == pytest.approx(0, abs=1e-3)
    with torch.no_grad():
        features.log_sigma.fill_(-50.0)
        least = features.distortion(real, real)
    constant = LOG_SIGMA_RANGE[0] + 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(least, torch.full((6,), 50 * constant))
