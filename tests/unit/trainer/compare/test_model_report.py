"""The figures of one published model, with its traversals and interpolations."""

from pathlib import Path

import numpy as np
import pytest

from convvae_trainer.compare.bundle_model import BundleModel, open_model
from convvae_trainer.compare.latent_paths import TRAVERSAL
from convvae_trainer.compare.model_report import ModelReport, measure
from convvae_trainer.compare.nearest import NearestImages
from convvae_trainer.compare.published import find_versions
from convvae_trainer.compare.sample import TestSample as Sample
from convvae_trainer.compare.sample import draw_sample
from convvae_trainer.data.dataset import Dataset
from convvae_trainer.runs.fit import Fitted


def sample_of(dataset: Dataset) -> Sample:
    return draw_sample(dataset, limit=1000, columns=4, seed=0)


def report_of(model: BundleModel, sample: Sample, dataset: Dataset) -> ModelReport:
    return measure(model, sample, classifier=None, nearest=NearestImages(dataset.train, dataset.test))


def test_figures_are_those_of_the_evaluation(
    published_pair: tuple[Path, Dataset], fitted: tuple[Fitted, Dataset]
) -> None:
    """Graphs and manifest's constants give the bound that PyTorch measured with the same draws."""
    root, dataset = published_pair
    (published,) = find_versions([str(root / "blobs")])
    model_report = report_of(open_model(published), sample_of(dataset), dataset)
    expected = fitted[0].evaluation.bound
    for name in ("elbo", "distortion", "rate"):
        assert getattr(
            model_report.posterior if name != "distortion" else model_report, name
        ) == pytest.approx(getattr(expected, name), rel=1e-4), name
    assert model_report.posterior.bits_per_dim_missing == expected.bits_per_dim_missing != ""
    assert model_report.active_units == expected.active_units
    assert model_report.posterior.rate_per_dimension == pytest.approx(
        expected.rate_per_dimension, rel=1e-3, abs=1e-5
    )
    assert model_report.posterior.deviation is not None
    assert 0 < model_report.posterior.deviation < 2


def test_an_autoencoder_has_neither_rate_nor_bound(published_pair: tuple[Path, Dataset]) -> None:
    """Figures that need a posterior are None, the others are measured."""
    root, dataset = published_pair
    (published,) = find_versions([str(root / "blobs-ae")])
    sample = draw_sample(dataset, limit=4, columns=4, seed=0)
    model_report = report_of(open_model(published), sample, dataset)
    assert (
        model_report.posterior.rate,
        model_report.posterior.elbo,
        model_report.posterior.bits_per_dim,
        model_report.posterior.deviation,
    ) == (None,) * 4
    assert model_report.posterior.rate_per_dimension == ()
    assert model_report.distortion > 0
    mse = np.square((model_report.reconstructions.astype(float) - sample.images) / 255).mean()
    assert model_report.quality.mse == pytest.approx(mse, rel=1e-5)


def test_traversals_move_one_dimension_of_the_highest_rates(published_pair: tuple[Path, Dataset]) -> None:
    """Dimensions are sorted by rate, and the row's images differ in that dimension alone."""
    root, dataset = published_pair
    (published,) = find_versions([str(root / "blobs")])
    model, sample = open_model(published), sample_of(dataset)
    model_report = report_of(model, sample, dataset)
    order = np.argsort(model_report.posterior.rate_per_dimension)[::-1]
    assert [strip.label for strip in model_report.traversals] == [f"z{dimension}" for dimension in order]
    latent = np.repeat(model.encode(sample.images[sample.shown[:1]])[0], len(TRAVERSAL), axis=0)
    latent[:, order[0]] = TRAVERSAL
    np.testing.assert_array_equal(model_report.traversals[0].images, model.decode(latent))


def test_interpolations_begin_and_end_at_two_inputs(published_pair: tuple[Path, Dataset]) -> None:
    """Each strip goes from one test image over both reconstructions to the next one."""
    root, dataset = published_pair
    (published,) = find_versions([str(root / "blobs")])
    sample = sample_of(dataset)
    model_report = report_of(open_model(published), sample, dataset)
    assert len(model_report.interpolations) == 2
    for pair, strip in enumerate(model_report.interpolations):
        first, last = 2 * pair, 2 * pair + 1
        np.testing.assert_array_equal(strip.images[[0, -1]], sample.images[sample.shown[[first, last]]])
        steps = strip.images[[1, -2]].astype(int) - model_report.reconstructions[[first, last]]
        assert np.abs(steps).max() <= 1


def test_draws_come_from_the_prior_alone(published_pair: tuple[Path, Dataset]) -> None:
    """Equal seeds give equal draws, whatever else is measured; an autoencoder has no prior, and none."""
    root, dataset = published_pair
    models = [open_model(one) for one in find_versions([str(root / "blobs"), str(root / "blobs-ae")])]
    vae, ae = (report_of(model, sample_of(dataset), dataset) for model in models)
    assert ae.draws is None
    assert vae.draws is not None
    noise = np.random.default_rng([0, 1]).standard_normal((256, 4), dtype=np.float32)
    np.testing.assert_array_equal(vae.draws.images, models[0].decode(noise)[:4])
    assert vae.draws.nearest.shape == vae.draws.images.shape
    assert any(np.array_equal(vae.draws.nearest[0], image) for image in dataset.train)
    assert vae.to_json_object()["prior_draws"]["searched"] == 256
