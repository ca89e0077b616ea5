"""Evaluation on test images."""

import numpy as np
import pytest
import torch

from convvae_trainer.data.dataset import Dataset
from convvae_trainer.evaluation.binarization import BINARIZE_SEED, binarize_images
from convvae_trainer.evaluation.image_quality import reconstruction_quality
from convvae_trainer.evaluation.inference import posterior_means, reconstructions, samples
from convvae_trainer.evaluation.metrics import evaluate
from convvae_trainer.exports.graphs import DecoderGraph, EncoderGraph
from convvae_trainer.objectives.bound import ACTIVE_VARIANCE, elbo_terms
from convvae_trainer.runs.fit import Fitted


def test_figures_add_up(fitted: tuple[Fitted, Dataset]) -> None:
    """ELBO, rates and bits follow from one another; the seeds are stated."""
    done, dataset = fitted
    figures = evaluate(done.train_state, dataset.test, dataset="blobs", binarize="none", seed=3)
    assert figures.bound.rate is not None
    assert figures.bound.elbo is not None
    assert figures.bound.elbo == pytest.approx(-(figures.bound.distortion + figures.bound.rate))
    assert sum(figures.bound.rate_per_dimension) == pytest.approx(figures.bound.rate)
    assert figures.bound.bits_per_dim is None
    assert "these have grey levels" in figures.bound.bits_per_dim_missing
    assert (figures.images, figures.seed, figures.bound.posterior_samples) == (len(dataset.test), 3, 1)
    assert (figures.binarize, figures.binarize_seed) == ("none", None)
    again = evaluate(done.train_state, dataset.test, dataset="blobs", binarize="none", seed=3)
    assert again == figures
    other = evaluate(done.train_state, dataset.test, dataset="blobs", binarize="none", seed=4)
    assert other.bound.rate == figures.bound.rate
    assert other.bound.distortion != figures.bound.distortion


def test_it_is_the_training_bound(fitted: tuple[Fitted, Dataset]) -> None:
    """With the same draws, evaluation equals the bound that training ascends."""
    done, dataset = fitted
    figures = evaluate(done.train_state, dataset.test, dataset="blobs", binarize="none", seed=0)
    noise = np.random.default_rng(0).standard_normal((len(dataset.test), 4), dtype=np.float32)
    x = torch.from_numpy(dataset.test).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad(), done.train_state.ema.swapped_in():
        terms = elbo_terms(done.train_state.model, done.train_state.likelihood, x, torch.from_numpy(noise))
    assert figures.bound.distortion == pytest.approx(terms.distortion.mean().item(), rel=1e-5)
    assert figures.bound.rate == pytest.approx(terms.rate.mean().item(), rel=1e-5)


def test_binary_images_are_drawn_once() -> None:
    """Binarisation is the same every time, keeps black and white, and has the grey levels as its mean."""
    images = np.full((200, 10, 10, 1), 64, dtype=np.uint8)
    images[:, 0], images[:, 1] = 0, 255
    drawn = binarize_images(images)
    np.testing.assert_array_equal(drawn, binarize_images(images))
    assert set(np.unique(drawn)) == {0, 255}
    assert not drawn[:, 0].any()
    assert (drawn[:, 1] == 255).all()
    assert drawn[:, 2:].mean() == pytest.approx(64, abs=2)
    np.testing.assert_array_equal(binarize_images(images[:7]), drawn[:7])
    many = np.tile(images, (6, 1, 1, 1))
    levels = np.random.default_rng(BINARIZE_SEED).random(many.shape, dtype=np.float32)
    np.testing.assert_array_equal(binarize_images(many), np.where(levels * 255 < many, 255, 0))


def test_dynamic_runs_are_evaluated_on_binary_images(fitted: tuple[Fitted, Dataset]) -> None:
    """With `binarize` the figures are of the binary images, and state the seed of the draw."""
    done, dataset = fitted
    figures = evaluate(done.train_state, dataset.test, dataset="blobs", binarize="dynamic")
    drawn = evaluate(done.train_state, binarize_images(dataset.test), dataset="blobs", binarize="none")
    assert figures.bound.elbo == drawn.bound.elbo
    assert figures.binarize_seed == 777


def test_active_units_are_those_that_move(fitted: tuple[Fitted, Dataset]) -> None:
    """A latent dimension counts as active when its posterior mean varies over the images."""
    done, dataset = fitted
    images = np.concatenate([dataset.train, dataset.test])
    figures = evaluate(done.train_state, images, dataset="blobs", binarize="none")
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad(), done.train_state.ema.swapped_in():
        mean = done.train_state.model.encoder(x)[0]
    assert figures.bound.active_units == int((mean.var(0, unbiased=False) > ACTIVE_VARIANCE).sum())
    still = np.repeat(images[:1], 5, axis=0)
    assert evaluate(done.train_state, still, dataset="x", binarize="none").bound.active_units == 0


def test_quality_is_of_what_the_service_answers(fitted: tuple[Fitted, Dataset]) -> None:
    """Reconstructions and draws are those of the exported networks; the figures are of them."""
    done, dataset = fitted
    train_state, images = done.train_state, dataset.test
    figures = evaluate(train_state, images, dataset="blobs", binarize="none", seed=2)
    with torch.no_grad(), train_state.ema.swapped_in():
        mean = EncoderGraph(train_state.model)(torch.from_numpy(images))[0]
        steps, pixels = DecoderGraph(train_state.model, train_state.likelihood)(mean)
    quality = reconstruction_quality(images, pixels.numpy())
    assert figures.reconstruction.mse == pytest.approx(quality.mse, rel=1e-5)
    assert figures.reconstruction.psnr_db == pytest.approx(quality.psnr_db, rel=1e-5)
    assert figures.reconstruction.ssim == pytest.approx(quality.ssim, rel=1e-4)
    assert figures.reconstruction.sharpness_distance == pytest.approx(quality.sharpness_distance, rel=1e-4)
    assert figures.reconstruction.input_sharpness == pytest.approx(quality.input_sharpness, rel=1e-5)
    drawn = samples(train_state, 8, seed=2)
    sample_sharpness = reconstruction_quality(drawn, drawn).input_sharpness
    assert figures.sample_sharpness == pytest.approx(sample_sharpness, rel=0.1)
    np.testing.assert_array_equal(reconstructions(train_state, images), steps.numpy())
    np.testing.assert_allclose(posterior_means(train_state, images), mean.numpy(), atol=1e-5)
