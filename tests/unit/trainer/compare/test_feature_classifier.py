"""The classifier in whose features a comparison measures Fréchet distances."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from convvae_trainer.compare import feature_classifier
from convvae_trainer.compare.bundle_model import open_model
from convvae_trainer.compare.feature_classifier import FeatureClassifier, train_feature_classifier
from convvae_trainer.compare.model_report import measure
from convvae_trainer.compare.nearest import NearestImages
from convvae_trainer.compare.published import find_versions
from convvae_trainer.compare.sample import TestSample as Sample
from convvae_trainer.compare.sample import draw_sample
from convvae_trainer.data.dataset import Dataset
from convvae_trainer.evaluation import classifier as classifier_module


def labelled(dataset: Dataset) -> Dataset:
    """Return half of the images inverted, which is what the labels say."""
    flips = [np.arange(len(images)) % 2 == 1 for images in (dataset.train, dataset.test)]
    train, test = (
        np.where(flip[:, None, None, None], 255 - images, images)
        for flip, images in zip(flips, (dataset.train, dataset.test), strict=True)
    )
    labels = [flip.astype(np.int64) for flip in flips]
    return dataclasses.replace(dataset, train=train, test=test, train_labels=labels[0], test_labels=labels[1])


def sample_of(dataset: Dataset) -> Sample:
    return draw_sample(dataset, limit=1000, columns=4, seed=0)


def test_a_classifier_needs_labels(
    published_pair: tuple[Path, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Distances are measured if there are useful labels; otherwise a phrase says why not."""
    monkeypatch.setattr(classifier_module, "STEPS", 60)
    root, plain = published_pair
    data = labelled(plain)
    sample = sample_of(data)
    assert (
        train_feature_classifier(data, sample) == "with 64 test images or fewer the distance is mostly bias"
    )
    monkeypatch.setattr(feature_classifier, "NUM_FEATURES", 2)
    classifier = train_feature_classifier(data, sample)
    assert isinstance(classifier, FeatureClassifier)
    assert classifier.accuracy == 1.0
    models = [open_model(one) for one in find_versions([str(root / "blobs"), str(root / "blobs-ae")])]
    vae, ae = (
        measure(model, sample, classifier=classifier, nearest=NearestImages(data.train, data.test))
        for model in models
    )
    assert vae.frechet.frechet_reconstructions is not None
    assert vae.frechet.frechet_reconstructions > classifier.reference
    assert vae.frechet.frechet_samples is not None
    assert ae.frechet.frechet_samples is None
    assert ae.frechet.accuracy is not None
    assert 0 <= ae.frechet.accuracy <= 1
    assert "no labels" in str(train_feature_classifier(plain, sample_of(plain)))
    random = np.random.default_rng(0)
    mixed = dataclasses.replace(
        plain,
        train_labels=random.integers(0, 2, len(plain.train)),
        test_labels=np.arange(len(plain.test)) % 2,
    )
    monkeypatch.setattr(classifier_module, "STEPS", 1)
    assert "the classifier is right on" in str(train_feature_classifier(mixed, sample_of(mixed)))
