"""Evaluation on test images."""

import math

import numpy as np
import pytest
import torch

from convvae_trainer.data import Dataset
from convvae_trainer.evaluate import BINARIZE_SEED, binarized, evaluate
from convvae_trainer.fit import Fitted
from convvae_trainer.objective import ACTIVE_VARIANCE, elbo_terms


def test_figures_add_up(fitted: tuple[Fitted, Dataset]) -> None:
    """ELBO, rates and bits follow from one another; the seeds are stated."""
    done, dataset = fitted
    figures = evaluate(done.learner, dataset.test, dataset="blobs", binarize="none", seed=3)
    assert figures.rate is not None
    assert figures.elbo is not None
    assert figures.elbo == pytest.approx(-(figures.distortion + figures.rate))
    assert sum(figures.rate_per_dimension) == pytest.approx(figures.rate)
    assert figures.bits_per_dim == pytest.approx(-figures.elbo / (120 * math.log(2)))
    assert (figures.images, figures.seed, figures.posterior_samples) == (8, 3, 1)
    assert (figures.binarize, figures.binarize_seed) == ("none", None)
    again = evaluate(done.learner, dataset.test, dataset="blobs", binarize="none", seed=3)
    assert again == figures
    other = evaluate(done.learner, dataset.test, dataset="blobs", binarize="none", seed=4)
    assert other.rate == figures.rate
    assert other.distortion != figures.distortion


def test_it_is_the_training_bound(fitted: tuple[Fitted, Dataset]) -> None:
    """With the same draws, evaluation equals the bound that training ascends."""
    done, dataset = fitted
    figures = evaluate(done.learner, dataset.test, dataset="blobs", binarize="none", seed=0)
    noise = np.random.default_rng(0).standard_normal((8, 4), dtype=np.float32)
    x = torch.from_numpy(dataset.test).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad(), done.learner.average.in_use():
        terms = elbo_terms(done.learner.model, done.learner.likelihood, x, torch.from_numpy(noise))
    assert figures.distortion == pytest.approx(terms.distortion.mean().item(), rel=1e-5)
    assert figures.rate == pytest.approx(terms.rate.mean().item(), rel=1e-5)


def test_binary_images_are_drawn_once() -> None:
    """Binarisation is the same every time, keeps black and white, and has the grey levels as its mean."""
    images = np.full((200, 10, 10, 1), 64, dtype=np.uint8)
    images[:, 0], images[:, 1] = 0, 255
    drawn = binarized(images)
    np.testing.assert_array_equal(drawn, binarized(images))
    assert set(np.unique(drawn)) == {0, 255}
    assert not drawn[:, 0].any()
    assert (drawn[:, 1] == 255).all()
    assert drawn[:, 2:].mean() == pytest.approx(64, abs=2)
    np.testing.assert_array_equal(binarized(images[:7]), drawn[:7])
    many = np.tile(images, (6, 1, 1, 1))
    levels = np.random.default_rng(BINARIZE_SEED).random(many.shape, dtype=np.float32)
    np.testing.assert_array_equal(binarized(many), np.where(levels * 255 < many, 255, 0))


def test_dynamic_runs_are_evaluated_on_binary_images(fitted: tuple[Fitted, Dataset]) -> None:
    """With `binarize` the figures are of the binary images, and state the seed of the draw."""
    done, dataset = fitted
    figures = evaluate(done.learner, dataset.test, dataset="blobs", binarize="dynamic")
    drawn = evaluate(done.learner, binarized(dataset.test), dataset="blobs", binarize="none")
    assert figures.elbo == drawn.elbo
    assert figures.binarize_seed == 777


def test_active_units_are_those_that_move(fitted: tuple[Fitted, Dataset]) -> None:
    """A latent dimension counts as active when its posterior mean varies over the images."""
    done, dataset = fitted
    images = np.concatenate([dataset.train, dataset.test])
    figures = evaluate(done.learner, images, dataset="blobs", binarize="none")
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad(), done.learner.average.in_use():
        mean = done.learner.model.encoder(x)[0]
    assert figures.active_units == int((mean.var(0, unbiased=False) > ACTIVE_VARIANCE).sum())
    still = np.repeat(images[:1], 5, axis=0)
    assert evaluate(done.learner, still, dataset="x", binarize="none").active_units == 0
