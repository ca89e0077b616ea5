"""Likelihoods: normalised, equal to closed forms, finite at the extremes, and the same in the service."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import (
    Distribution,
    Normal,
    SigmoidTransform,
    TransformedDistribution,
    Uniform,
)

from convvae_service.bundle import likelihood as served
from convvae_service.bundle import records
from convvae_trainer.exports import model_card
from convvae_trainer.networks.likelihoods import (
    LOG_SIGMA_RANGE,
    Bernoulli,
    DiscretisedLogistic,
    Gaussian,
    PixelLikelihood,
    make_likelihood,
)
from convvae_trainer.settings.config import SETTINGS

LEVELS = torch.arange(256) / 255
# Near both ends, at them, and between.
MEANS = (1e-6, 0.002, 0.3, 0.5, 0.77, 0.998, 1 - 1e-6)


def with_scale(made: Gaussian | DiscretisedLogistic, scale: float) -> PixelLikelihood:
    """Return the likelihood with its learned constant set, which may lie outside of its range."""
    (parameter,) = made.parameters()
    with torch.no_grad():
        parameter.fill_(math.log(scale))
    return made


LIKELIHOODS: dict[str, Callable[[], PixelLikelihood]] = {
    "bernoulli": Bernoulli,
    "gaussian": lambda: with_scale(Gaussian(), 0.07),
    "narrow gaussian": lambda: with_scale(Gaussian(), 1e-9),
    "fixed gaussian": lambda: Gaussian(0.3),
    "logistic": lambda: with_scale(DiscretisedLogistic(), 0.03),
    "narrow logistic": lambda: with_scale(DiscretisedLogistic(), 1e-9),
    "wide logistic": lambda: with_scale(DiscretisedLogistic(), 1e9),
}


def single_pixels(values: Tensor) -> Tensor:
    """Return images of one pixel."""
    return values.float().view(-1, 1, 1, 1)


@pytest.mark.parametrize("scale", [4e-4, 0.002, 0.03, 0.3, 1.0])
@pytest.mark.parametrize("mean", MEANS)
def test_the_levels_of_a_discretised_logistic_sum_to_1(scale: float, mean: float) -> None:
    """Over all 256 levels the probabilities sum to 1, wherever the mean lies, in both forms."""
    likelihood = with_scale(DiscretisedLogistic(), scale)
    output = single_pixels(torch.full((256,), math.log(mean / (1 - mean))))
    with torch.no_grad():
        evaluated = likelihood.evaluated_distortion(likelihood.pixel_mean(output), single_pixels(LEVELS))
        trained = likelihood.distortion(output, single_pixels(LEVELS))
    assert (-evaluated.double()).exp().sum().item() == pytest.approx(1, abs=1e-5)
    assert (-trained.double()).exp().sum().item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("scale", [0.01, 0.1, 0.5])
def test_a_discretised_logistic_is_the_mass_of_bins(scale: float) -> None:
    """Each level has the logistic's mass of its bin, and the end bins the tails."""
    uniform = Uniform(torch.tensor(0.0).double(), torch.tensor(1.0).double())
    likelihood = with_scale(DiscretisedLogistic(), scale)
    logistic: Distribution = TransformedDistribution(uniform, [SigmoidTransform().inv], validate_args=False)
    for mean in (0.1, 0.5, 0.85):
        centres = LEVELS.double()
        upper = logistic.cdf((centres + 0.5 / 255 - mean) / scale)
        lower = logistic.cdf((centres - 0.5 / 255 - mean) / scale)
        upper[-1], lower[0] = 1.0, 0.0
        given = single_pixels(torch.full((256,), mean))
        with torch.no_grad():
            found = likelihood.evaluated_distortion(given, single_pixels(LEVELS))
        mass = upper - lower
        # In the tails the difference of two numbers near 1 has no digits left: there is nothing to compare.
        is_exact = mass > 1e-9
        assert is_exact.sum() > 40
        torch.testing.assert_close(found[is_exact].double(), -mass[is_exact].log(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("likelihood", [with_scale(Gaussian(), 0.1), Gaussian(0.2), Gaussian(1.7)])
def test_a_gaussian_integrates_to_1(likelihood: Gaussian) -> None:
    """Its density integrates to 1, learned or fixed, beyond 0..1 too."""
    x = torch.linspace(-12, 13, 200_001, dtype=torch.float64)
    output = torch.full((len(x), 1, 1, 1), 0.4)
    with torch.no_grad():
        density = (-likelihood.distortion(output, x.view(-1, 1, 1, 1))).exp()
    assert torch.trapezoid(density.double(), x).item() == pytest.approx(1, abs=1e-5)


def test_a_bernoulli_has_two_outcomes() -> None:
    """The probabilities of black and white sum to 1, in both forms."""
    likelihood = Bernoulli()
    for logit in (-30.0, -3.0, 0.0, 0.4, 30.0):
        output = single_pixels(torch.full((2,), logit))
        ends = single_pixels(torch.tensor([0.0, 1.0]))
        assert (-likelihood.distortion(output, ends)).exp().sum().item() == pytest.approx(1, abs=1e-6)
        evaluated = likelihood.evaluated_distortion(likelihood.pixel_mean(output), ends)
        assert (-evaluated).exp().sum().item() == pytest.approx(1, abs=1e-6)


def test_a_fixed_sigma_is_not_learned() -> None:
    """It has no trainable parameter, may exceed the range of a learned one, and is the stated constant."""
    likelihood = Gaussian(3.0)
    assert not [parameter for parameter in likelihood.parameters() if parameter.requires_grad]
    assert likelihood.constants().sigma == pytest.approx(3.0)
    x, output = torch.rand(2, 1, 4, 4), torch.randn(2, 1, 4, 4)
    density: Distribution = Normal(output.sigmoid(), 3.0)
    expected = -density.log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(likelihood.distortion(output, x), expected)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_gradients_are_finite_at_the_extremes(name: str) -> None:
    """For any output of the decoder and any pixel, loss and gradient are finite in float32."""
    likelihood = LIKELIHOODS[name]()
    logits = torch.tensor([-1e4, -100.0, -20.0, 0.0, 20.0, 100.0, 1e4])
    output, x = (grid.reshape(-1, 1, 1, 1) for grid in torch.meshgrid(logits, LEVELS[::51], indexing="ij"))
    output = output.clone().requires_grad_()
    loss = likelihood.distortion(output, x)
    assert torch.isfinite(loss).all()
    learned = [parameter for parameter in likelihood.parameters() if parameter.requires_grad]
    for gradient in torch.autograd.grad(loss.sum(), [output, *learned]):
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", ["gaussian", "logistic"])
@pytest.mark.parametrize("start", [1e-9, 1e4])
def test_a_constant_outside_of_its_range_comes_back(name: str, start: float) -> None:
    """A sigma or scale that one step moved out of its range can return."""
    likelihood = with_scale(Gaussian() if name == "gaussian" else DiscretisedLogistic(), start)
    x = torch.rand(4, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    output = torch.zeros_like(x)
    (parameter,) = likelihood.parameters()
    optimizer = torch.optim.Adam([parameter], lr=0.1)
    for _ in range(400):
        optimizer.zero_grad()
        likelihood.distortion(output, x).mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert LOG_SIGMA_RANGE[0] + 1 < parameter.item() < LOG_SIGMA_RANGE[1] - 0.5


def test_a_constant_does_not_run_away_beyond_its_range() -> None:
    """With a perfect fit the gradient of sigma is 0 at the end of its range."""
    likelihood = with_scale(Gaussian(), 1e-9)
    x = torch.full((2, 1, 4, 4), 0.5)
    (parameter,) = likelihood.parameters()
    (slope,) = torch.autograd.grad(likelihood.distortion(torch.zeros_like(x), x).mean(), parameter)
    assert slope.item() == 0


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_training_evaluation_and_service_agree(name: str) -> None:
    """The loss, the trainer's figure and the service's score are one number, for every likelihood."""
    random = np.random.default_rng(5)
    images_NHWC = random.integers(0, 256, (6, 9, 7, 3), dtype=np.uint8)
    images_NHWC[0], images_NHWC[1] = 0, 255
    x = torch.from_numpy(images_NHWC).permute(0, 3, 1, 2) / 255
    # Logits near the pixels, as a decoder's are; further ones below.
    output = torch.logit(x.clamp(0.01, 0.99)) + 0.3 * torch.randn(x.shape)
    likelihood = LIKELIHOODS[name]()
    with torch.no_grad():
        trained = likelihood.distortion(output, x).numpy()
        pixel_mean = likelihood.pixel_mean(output)
        evaluated = likelihood.evaluated_distortion(pixel_mean, x).numpy()
        far = torch.rand(x.shape)
        evaluated_far = likelihood.evaluated_distortion(far, x).numpy()
    constants = likelihood.constants()
    told = pixel_mean.permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(trained, evaluated, rtol=2e-4)
    np.testing.assert_allclose(served.distortion(constants, images_NHWC, told), evaluated, rtol=1e-5)
    told = far.permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(served.distortion(constants, images_NHWC, told), evaluated_far, rtol=1e-5)


@pytest.mark.parametrize("name", ["bernoulli", "gaussian", "discretised-logistic"])
def test_what_the_service_is_told_is_enough(name: str) -> None:
    """The service scores every likelihood of a run, under the same name."""
    likelihood = make_likelihood(name)
    assert likelihood.constants().name == name
    images = np.full((1, 8, 8, 1), 128, np.uint8)
    found = served.distortion(likelihood.constants(), images, np.full((1, 8, 8, 1), 0.4, np.float32))
    assert np.isfinite(found).all()


def test_every_table_of_likelihoods_has_each() -> None:
    """A likelihood that a run may have can be made, described, scored and explained on a model card."""
    # With auto the images decide on one of the others.
    names = set(SETTINGS["likelihood"].choices) - {"auto"}
    assert {make_likelihood(name).constants().name for name in names} == names
    tables = (records._LIKELIHOOD_CONSTANTS, served._DISTORTIONS, model_card._LIKELIHOOD_LIMITS)
    assert [set(table) for table in tables] == [names] * len(tables)
