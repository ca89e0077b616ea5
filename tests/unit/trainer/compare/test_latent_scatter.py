"""Scatters of two-dimensional models, and their figures."""

from pathlib import Path

import numpy as np
import pytest

from convvae_trainer.compare.latent_scatter import separation, train_scatters
from convvae_trainer.data.dataset import Dataset


def test_scatters_show_what_either_term_does(published_pair: tuple[Path, Dataset]) -> None:
    """The reconstruction term alone spreads the means, the KL term alone brings every image to the prior."""
    _, dataset = published_pair
    told: list[str] = []
    alone, prior, both = train_scatters(dataset, likelihood="gaussian", epochs=60, announce=told.append)
    assert {one.likelihood for one in (alone, prior, both)} == {"gaussian"}
    assert told == [alone.terms, prior.terms, both.terms] == ["distortion", "rate", "both"]
    assert alone.spread > both.spread > prior.spread
    assert prior.rate < 0.01 < both.rate < alone.rate
    assert prior.deviation == pytest.approx(1, abs=0.02)
    assert alone.draws.shape == (len(dataset.train), 2)
    assert alone.labels is None
    assert alone.separation is None
    assert alone.train_images == len(dataset.train)
    assert alone.test_images == len(dataset.test)


def test_separation_is_the_share_of_variance_between_classes() -> None:
    """1 where a class is a point, 0 where all classes have one centre, None where nothing varies."""
    labels = np.array([0, 0, 1, 1])
    assert separation(np.array([[0.0, 1], [0, 1], [2, 3], [2, 3]]), labels) == pytest.approx(1)
    assert separation(np.array([[-1.0, 0], [1, 0], [-1, 0], [1, 0]]), labels) == pytest.approx(0)
    assert separation(np.array([[0.0], [2], [2], [4]]), labels) == pytest.approx(0.5)
    assert separation(np.zeros((4, 2)), labels) is None
