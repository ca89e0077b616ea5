"""How many images are computed at once: memory is bounded, and results do not depend on it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from convvae_trainer.compare.bundle_model import open_model
from convvae_trainer.compare.published import find_versions
from convvae_trainer.data import chunking as batch
from convvae_trainer.data.chunking import MAX_ROWS, MAX_VALUES, chunk_size, chunks
from convvae_trainer.data.dataset import Dataset
from convvae_trainer.evaluation.binarization import BINARIZE_SEED, binarize_images
from convvae_trainer.evaluation.bound import fit_sigma
from convvae_trainer.evaluation.classifier import ClassifierNetwork
from convvae_trainer.evaluation.inference import network_batches, posterior_means, reconstructions, samples
from convvae_trainer.evaluation.metrics import evaluate
from convvae_trainer.runs.fit import Fitted
from convvae_trainer.settings.config import Config
from convvae_trainer.step.train_state import TrainState


@pytest.mark.parametrize("width", [8, 32, 128])
@pytest.mark.parametrize("shape", [(28, 28, 1), (64, 64, 3), (256, 256, 3), (8, 256, 1)])
def test_a_batch_holds_the_largest_layer_within_bounds(shape: tuple[int, int, int], width: int) -> None:
    """No layer of any network holds more values in a batch than the bound; small images come 500 at once."""
    train_state = TrainState(
        Config(dataset="x", width=width, likelihood="bernoulli"), shape=shape, device=torch.device("cpu")
    )
    sizes = []
    for layer in (*train_state.model.encoder.layers, *train_state.model.decoder.layers):
        layer.register_forward_hook(lambda *call: sizes.append(call[-1].numel()))
    rows = chunk_size(*shape, base=width)
    images = np.zeros((rows, *shape), np.uint8)
    assert [len(x) for x in network_batches(train_state, np.zeros((rows + 1, *shape), np.uint8))] == [rows, 1]
    with torch.no_grad():
        for x_BCHW in network_batches(train_state, images[:1]):
            train_state.model.decoder(train_state.model.encoder(x_BCHW)[0])
    assert rows * max(sizes) <= MAX_VALUES
    assert (rows == MAX_ROWS) == (MAX_ROWS * max(sizes) <= MAX_VALUES)


def test_at_least_one_image_makes_a_batch() -> None:
    """However large the layers are; and chunks cover all rows once."""
    assert chunk_size(256, 256, 3, base=1024) == 1
    assert chunk_size(28, 28, 1) == MAX_ROWS
    assert [(part.start, part.stop) for part in chunks(7, 3)] == [(0, 3), (3, 6), (6, 7)]
    assert list(chunks(0, 3)) == []


def test_binary_images_are_those_of_one_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    """The draw does not depend on how the images are cut up, odd pieces included."""
    images = np.random.default_rng(1).integers(0, 256, (7, 9, 9, 1), np.uint8)
    level = np.random.default_rng(BINARIZE_SEED).random(images.shape, dtype=np.float32)
    expected = np.where(level * 255 < images, 255, 0)
    for values in (81, 3 * 81, MAX_VALUES):
        monkeypatch.setattr(batch, "MAX_VALUES", values)
        np.testing.assert_array_equal(binarize_images(images), expected)


def test_figures_do_not_depend_on_the_batch(
    fitted: tuple[Fitted, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Posterior and prior draws are the same, and figures differ by rounding at the most."""
    train_state, images = fitted[0].train_state, fitted[1].train

    def found() -> tuple[dict[str, Any], Any, Any, Any]:
        figures = evaluate(train_state, images, dataset="x", binarize="dynamic", seed=3).to_json_object()
        pictures = samples(train_state, 9, seed=3), reconstructions(train_state, images)
        return figures, posterior_means(train_state, images), *pictures

    whole = found()
    monkeypatch.setattr(batch, "MAX_VALUES", 12 * 10 * 7)
    assert max(len(x_BCHW) for x_BCHW in network_batches(train_state, images)) == 7
    pieces = found()
    for name, value in whole[0].items():
        is_exact = value is None or isinstance(value, str)
        assert pieces[0][name] == (value if is_exact else pytest.approx(value, rel=1e-5)), name
    np.testing.assert_allclose(pieces[1], whole[1], rtol=1e-4, atol=1e-5)
    for one, other in zip(pieces[2:], whole[2:], strict=True):
        assert np.abs(one.astype(int) - other).max() <= 1


def test_a_fitted_sigma_does_not_depend_on_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is that of the same draws."""
    images = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 1), np.uint8)
    config = Config(dataset="x", likelihood="gaussian", width=4, hidden=8, latent_dim=2)
    train_state = TrainState(config, shape=(8, 8, 1), device=torch.device("cpu"))
    whole = fit_sigma(train_state, images, seed=5)
    monkeypatch.setattr(batch, "MAX_VALUES", 8 * 8 * 2)
    assert fit_sigma(train_state, images, seed=5) == pytest.approx(whole, rel=1e-6)


def test_the_classifier_and_published_graphs_take_few_large_images(
    published_pair: tuple[Path, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their batches follow the same bound, and their results are the same."""
    root, dataset = published_pair
    classifier = ClassifierNetwork(shape=(12, 10, 1), classes=np.arange(2)).eval()
    model = open_model(find_versions([str(root / "blobs")])[0])
    images = dataset.test

    def found() -> list[Any]:
        mean, log_variance = model.encode(images)
        return [classifier.features(images), mean, log_variance, model.distortion(images, mean)]

    whole, sizes = found(), []
    classifier.layers[0].register_forward_hook(lambda *call: sizes.append(len(call[-1])))
    monkeypatch.setattr(batch, "MAX_VALUES", 12 * 10 * 8 * 3)
    for one, other in zip(found(), whole, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    assert sizes == [3, 3, 3, 1]
    assert [part.stop for part in model._chunks(10)] == [3, 6, 9, 10]
