"""The importance-weighted log-likelihood, on a model whose log p(x) is known."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from convvae_trainer.data.dataset import Dataset
from convvae_trainer.errors import BadConfig
from convvae_trainer.evaluation.importance import LogLikelihood, check_samples, log_likelihoods
from convvae_trainer.evaluation.metrics import evaluate
from convvae_trainer.networks.likelihoods import Gaussian
from convvae_trainer.runs.fit import Fitted

SIGMA = 0.3
SHAPE = (2, 3, 1)
CPU = torch.device("cpu")


class Direct(Gaussian):
    """A Gaussian whose mean is what the decoder puts out, with no sigmoid between them."""

    def pixel_mean(self, output_BCHW: Tensor) -> Tensor:
        """Return the output."""
        return output_BCHW


@dataclass
class LinearGaussian:
    """z ~ N(0, I), x ~ N(W z + b, SIGMA^2 I); the encoder is the posterior, or `off` by so much from it."""

    weight: Tensor
    offset: Tensor
    off: float = 0.0
    encoded: int = 0
    largest: int = 0

    def encoder(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        self.encoded += len(x_BCHW)
        precision = torch.eye(2) + self.weight.T @ self.weight / SIGMA**2
        # The columns of the weight are orthogonal: the posterior's covariance is diagonal.
        variance_Z = 1 / precision.diagonal()
        mean_BZ = (x_BCHW.flatten(1) - self.offset) @ self.weight / SIGMA**2 * variance_Z
        return mean_BZ + self.off, (variance_Z.log() + self.off).expand_as(mean_BZ)

    def decoder(self, latent_BZ: Tensor) -> Tensor:
        self.largest = max(self.largest, len(latent_BZ))
        flat = latent_BZ @ self.weight.T + self.offset
        return flat.view(-1, SHAPE[2], SHAPE[0], SHAPE[1])

    def log_p(self, images_NHWC: np.ndarray) -> np.ndarray:
        """Return log N(x; b, W W' + SIGMA^2 I)."""
        covariance = (self.weight @ self.weight.T).double() + SIGMA**2 * torch.eye(6, dtype=torch.float64)
        normal = torch.distributions.MultivariateNormal(self.offset.double(), covariance)
        x_B6 = torch.from_numpy(images_NHWC.reshape(-1, 6) / 255)
        found: np.ndarray = normal.log_prob(x_B6).numpy()  # type: ignore[no-untyped-call]
        return found


def linear(off: float = 0.0) -> LinearGaussian:
    columns = torch.linalg.qr(torch.from_numpy(np.random.default_rng(0).standard_normal((6, 2)))).Q
    weight = (columns * torch.tensor([0.5, 0.2])).float()
    return LinearGaussian(weight=weight, offset=torch.linspace(0.2, 0.7, 6), off=off)


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (9, *SHAPE), dtype=np.uint8)


def test_with_the_true_posterior_one_sample_is_exact(images: np.ndarray) -> None:
    """All weights are p(x) then, whatever is drawn."""
    model = linear()
    for samples in (1, 7):
        found = log_likelihoods(model, Direct(SIGMA), images, samples=samples, device=CPU, seed=samples)
        np.testing.assert_allclose(found, model.log_p(images), atol=1e-4)


def test_the_estimate_rises_to_log_p(images: np.ndarray) -> None:
    """With another posterior one sample is below log p(x), more come nearer, and 5,000 are there."""
    model = linear(off=0.4)
    exact = model.log_p(images).mean()
    errors = []
    for samples in (1, 10, 5000):
        found = [
            log_likelihoods(model, Direct(SIGMA), images, samples=samples, device=CPU, seed=seed).mean()
            for seed in range(20 if samples < 5000 else 1)
        ]
        errors.append(exact - np.mean(found))
    assert errors[0] > 2 * errors[1] > 0
    assert abs(errors[2]) < 0.02 < errors[1]


@pytest.mark.parametrize("rows", [1, 5, 23, 100])
def test_chunks_change_nothing(images: np.ndarray, rows: int) -> None:
    """Neither the result nor its draws depend on how much is decoded at once; each image is encoded once."""
    whole = log_likelihoods(linear(off=0.4), Direct(SIGMA), images, samples=23, device=CPU, seed=3)
    model = linear(off=0.4)
    found = log_likelihoods(
        model, Direct(SIGMA), images, samples=23, device=CPU, seed=3, chunk_values=rows * 6
    )
    np.testing.assert_allclose(found, whole, atol=1e-5)
    assert (model.encoded, model.largest <= rows) == (9, True)


def test_an_image_has_draws_of_its_own(images: np.ndarray) -> None:
    """Fewer images are the first of more; another seed gives other draws."""
    arguments: dict[str, Any] = {"samples": 3, "device": CPU}
    all_of_them = log_likelihoods(linear(off=0.4), Direct(SIGMA), images, seed=1, **arguments)
    some = log_likelihoods(linear(off=0.4), Direct(SIGMA), images[:4], seed=1, **arguments)
    np.testing.assert_allclose(some, all_of_them[:4], atol=1e-5)
    other = log_likelihoods(linear(off=0.4), Direct(SIGMA), images, seed=2, **arguments)
    assert (np.abs(other - all_of_them) > 1e-3).all()
    twins = np.repeat(images[:1], 2, axis=0)
    first, second = log_likelihoods(linear(off=0.4), Direct(SIGMA), twins, seed=1, **arguments)
    assert abs(first - second) > 1e-3


def test_progress_ends_at_1(images: np.ndarray) -> None:
    """It rises with every chunk."""
    shares: list[float] = []
    log_likelihoods(
        linear(), Direct(SIGMA), images, samples=4, device=CPU, chunk_values=12, progress=shares.append
    )
    assert shares == pytest.approx([(i + 1) / 18 for i in range(18)])


def test_of_a_trained_model_it_is_above_the_elbo(fitted: tuple[Fitted, Dataset]) -> None:
    """One sample estimates the ELBO, many of them a larger bound."""
    done, dataset = fitted
    train_state, images = done.train_state, np.concatenate([dataset.train, dataset.test])
    elbo = evaluate(train_state, images, dataset="blobs", binarize="none").bound.elbo
    assert elbo is not None
    with train_state.ema.swapped_in():
        one, many = (
            log_likelihoods(
                train_state.model, train_state.likelihood, images, samples=samples, device=CPU
            ).mean()
            for samples in (1, 50)
        )
    assert one == pytest.approx(elbo, abs=0.5)
    assert many > max(one, elbo)


def test_the_mean_has_a_standard_error() -> None:
    """A single image has no standard error."""
    nats = np.array([-1.0, -2.0, -6.0])
    found = LogLikelihood.from_images(nats, samples=5, seed=2)
    assert (found.nats, found.images, found.samples, found.seed) == (-3.0, 3, 5, 2)
    assert found.standard_error == pytest.approx(math.sqrt(7 / 3))
    assert LogLikelihood.from_images(nats[:1], samples=5, seed=2).standard_error is None


@pytest.mark.parametrize(("samples", "objective"), [(0, "vae"), (5001, "vae"), (10, "ae")])
def test_what_has_no_estimate_is_refused(samples: int, objective: str) -> None:
    """1 to 5,000 samples, of a model with a prior."""
    with pytest.raises(BadConfig, match="--importance-samples"):
        check_samples(samples, objective=objective)
    check_samples(5000, objective="vae-gan")
