"""`fit --from`: weights of a run and of a published model, and those that are refused."""

import dataclasses
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from convvae_service.bundle import BundleError
from convvae_trainer.commands.fit import FitResult, run_fit
from convvae_trainer.commands.start_weights import read_start_weights
from convvae_trainer.data.dataset import Dataset
from convvae_trainer.data.trained_on import fingerprints
from convvae_trainer.errors import BadConfig, BadData
from convvae_trainer.exports.publish import Exported
from convvae_trainer.runs.fit import Fitted, fit
from convvae_trainer.runs.folder import RunFolder
from convvae_trainer.runs.reproduce import reproducing_commands
from convvae_trainer.runs.start_weights import StartWeights
from convvae_trainer.settings.assembly import config_from
from convvae_trainer.settings.config import Config
from support.commands import evaluated
from support.interruption import Killed, before_step, kill
from support.run_comparison import assert_same
from support.tiny_bundle import publish_tiny
from support.tiny_run import TINY, export_fitted, tiny, write_blobs

Published = tuple[Path, Exported]


def averages(done: Fitted) -> dict[str, torch.Tensor]:
    """Return the averaged weights of a run."""
    return done.train_state.weights()


def started(config: Config, run_dir: Path, weights: StartWeights, **more: Any) -> tuple[FitResult, str]:
    """Run `fit` from weights, and return its result and its screen."""
    screen = io.StringIO()
    options: dict[str, Any] = {"resume": False, "download": False, "target": None, "command": "", **more}
    result = run_fit(config, run_dir, weights=weights, console=Console(file=screen, width=300), **options)
    assert result is not None
    return result, screen.getvalue()


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Other images of the same shape."""
    path = write_blobs(tmp_path / "other.npy", count=60)
    np.save(path, 255 - np.load(path))
    return path


def test_weights_of_a_run_are_its_averages(fitted: tuple[Fitted, Dataset]) -> None:
    """All weights are there, with settings, step, checksum and fingerprints."""
    run = fitted[0].run
    weights = read_start_weights(str(run.path))
    expected = averages(fitted[0])
    assert weights.tensors.keys() == expected.keys()
    assert all(torch.equal(weights.tensors[name], tensor) for name, tensor in expected.items())
    assert weights.settings["latent_dim"] == run.config.latent_dim
    assert (weights.origin.step, len(weights.origin.sha256)) == (fitted[0].progress.step, 64)
    assert weights.trained_on is not None
    assert np.isin(fingerprints(fitted[1].train[:20]), weights.trained_on).all()


@pytest.mark.parametrize("form", ["{models}/blobs", "{models}/blobs@1", "{models}/blobs/1"])
def test_weights_of_a_model_are_those_of_its_run(
    fitted: tuple[Fitted, Dataset], published_blobs: Published, form: str
) -> None:
    """The graphs have them bit by bit, and the manifest has the settings of the networks."""
    weights = read_start_weights(form.format(models=published_blobs[0]))
    ours = read_start_weights(str(fitted[0].run.path))
    model = {name: tensor for name, tensor in ours.tensors.items() if name.startswith("model.")}
    assert {name for name in weights.tensors if name.startswith("model.")} == model.keys()
    assert all(torch.equal(weights.tensors[name], tensor) for name, tensor in model.items())
    assert weights.settings == ours.settings
    assert (weights.objective, weights.likelihood, weights.image) == (
        ours.objective,
        ours.likelihood,
        ours.image,
    )
    assert str(weights.origin) == "blobs@1"
    assert weights.trained_on is not None
    assert ours.trained_on is not None
    assert np.array_equal(weights.trained_on, ours.trained_on)


def test_a_run_starts_with_the_weights(
    fitted: tuple[Fitted, Dataset], other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The networks have them before the first step, and a run that is killed there resumes with them."""
    weights = read_start_weights(str(fitted[0].run.path))
    config = config_from(weights.defaults, {"dataset": str(other), **TINY})
    whole, screen = started(config, tmp_path / "whole", weights)
    assert f"weights    those of {fitted[0].run.path.name}\n" in screen
    assert whole.evaluation.images > 0
    seen: list[dict[str, torch.Tensor]] = []

    def stop() -> None:
        seen.append({})
        kill()

    with monkeypatch.context() as patch:
        before_step(patch, 0, stop)
        with pytest.raises(Killed):
            started(config, tmp_path / "killed", weights)
    from convvae_trainer.runs.start import load_run

    _, train_state, progress = load_run(tmp_path / "killed")
    assert progress.step == 0
    assert all(torch.equal(weights.tensors[name], each) for name, each in train_state.weights().items())
    resumed: dict[str, Any] = {"resume": True, "download": False, "target": None, "command": ""}
    run_fit(config, tmp_path / "killed", console=Console(quiet=True), **resumed)
    assert_same(tmp_path / "whole", tmp_path / "killed")


def test_the_record_says_where_the_weights_come_from(
    published_blobs: Published, other: Path, tmp_path: Path
) -> None:
    """run.json, reproduce.txt, manifest and model card name the version; the bundle names no folder."""
    weights = read_start_weights(str(published_blobs[0] / "blobs"))
    config = config_from(weights.defaults, {"dataset": str(other), **TINY, "epochs": 1})
    started(config, tmp_path / "run", weights)
    run = RunFolder.open(tmp_path / "run")
    assert run.record.weights_from == weights.origin
    values = json.loads((tmp_path / "run" / "run.json").read_text())
    assert values["weights_from"]["reference"] == str(published_blobs[1].folder)
    (command,) = reproducing_commands(run.record)
    assert f"--from {published_blobs[1].folder} " in command
    text = (tmp_path / "run" / "reproduce.txt").read_text()
    assert f"the same first weights: {published_blobs[1].folder}; sha256 of its manifest" in text
    done = fit(run.config, load(config), tmp_path / "run", resume=True)
    made = export_fitted((done, load(config)), tmp_path / "models")
    assert made.manifest.training.metrics["training_weights_from"] == "blobs@1"
    card = (made.folder / "MODEL_CARD.md").read_text()
    assert "| First weights | those of blobs@1 |" in card
    assert "--from blobs@1 " in card
    assert str(published_blobs[0]) not in card


def load(config: Config) -> Dataset:
    """Load the data set of settings."""
    from convvae_trainer.data.dataset import load_dataset

    return load_dataset(config)


def test_images_that_the_weights_know_are_no_test_images(
    fitted: tuple[Fitted, Dataset], tmp_path: Path
) -> None:
    """The run keeps the fingerprints of both trainings, and leaves such images out of its test images."""
    train, test = fitted[1].train, fitted[1].test
    # New images, and a test part with images that the weights were trained on.
    new = 255 - train
    dataset = dataclasses.replace(fitted[1], train=new, test=np.concatenate([test, train[:5]]))
    dataset = dataclasses.replace(dataset, train_labels=None, test_labels=None)
    weights = read_start_weights(str(fitted[0].run.path))
    done = fit(fitted[0].run.config, dataset, tmp_path / "run", weights=weights)
    assert done.evaluation.images == len(test)
    assert done.evaluation.left_out == 5
    known = done.run.read_trained_on()
    assert known is not None
    assert weights.trained_on is not None
    assert np.isin(weights.trained_on, known).all()
    assert len(known) > len(np.unique(weights.trained_on))


def test_weights_that_know_all_test_images_are_refused(
    fitted: tuple[Fitted, Dataset], tmp_path: Path
) -> None:
    """Nothing would be left to test on: the run is refused before it makes a folder."""
    np.savez(tmp_path / "seen.npz", images=fitted[1].train)
    weights = read_start_weights(str(fitted[0].run.path))
    config = config_from(weights.defaults, {"dataset": str(tmp_path / "seen.npz"), **TINY})
    with pytest.raises(BadData, match=r"no image of .*seen.npz is left to test on"):
        started(config, tmp_path / "run", weights)
    assert not (tmp_path / "run").exists()


def test_unknown_images_are_said_to_be_unknown(
    fitted: tuple[Fitted, Dataset], other: Path, tmp_path: Path
) -> None:
    """Weights without fingerprints give a run without them, and a line that says so."""
    weights = dataclasses.replace(read_start_weights(str(fitted[0].run.path)), trained_on=None)
    config = config_from(weights.defaults, {"dataset": str(other), **TINY, "epochs": 1})
    done, screen = started(config, tmp_path / "run", weights)
    assert "this run keeps no fingerprints either" in screen
    assert RunFolder.open(tmp_path / "run").read_trained_on() is None
    assert done.evaluation.left_out is evaluated(tmp_path / "run").left_out is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"latent_dim": 5},
            r"^latent_dim is 5, but the weights of run are for latent_dim=4: a run that starts",
        ),
        ({"width": 6}, r"width is 6, but the weights of run are for width=4"),
        ({"hidden": 0}, r"hidden is 0, but"),
        (
            {"likelihood": "gaussian"},
            r"likelihood is gaussian, but the weights of run are for likelihood=ber",
        ),
        ({"objective": "ae"}, r"objective is ae, but the weights of run are those of vae: an encoder with a"),
    ],
)
def test_other_networks_are_refused_by_name(
    fitted: tuple[Fitted, Dataset], other: Path, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    """The error names the setting that differs, before data are read and a folder is made."""
    weights = read_start_weights(str(fitted[0].run.path))
    config = config_from(weights.defaults, {"dataset": "does/not/exist", **TINY, **settings})
    with pytest.raises(BadConfig, match=message):
        started(config, tmp_path / "run", weights)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((12, 12), r"are 12x12x1, but the weights of run are for 12x10x1: give --image-size 12x10$"),
        (
            (12, 10, 3),
            r"are 12x10x3, but the weights of run are for 12x10x1: give images with the same channels$",
        ),
    ],
)
def test_images_of_another_shape_are_refused(
    fitted: tuple[Fitted, Dataset], tmp_path: Path, shape: tuple[int, ...], message: str
) -> None:
    """The error says how to get the right shape, and no folder is made."""
    weights = read_start_weights(str(fitted[0].run.path))
    path = write_blobs(tmp_path / "data.npy", shape=shape)
    config = config_from(weights.defaults, {"dataset": str(path), **TINY})
    with pytest.raises(BadConfig, match=message):
        started(config, tmp_path / "run", weights)
    assert not (tmp_path / "run").exists()


def test_networks_of_unknown_settings_are_compared_by_shape(
    fitted: tuple[Fitted, Dataset], other: Path, tmp_path: Path
) -> None:
    """A version that records no settings is refused by the first weight that differs; nothing is left."""
    weights = dataclasses.replace(read_start_weights(str(fitted[0].run.path)), settings={})
    for settings, message in [
        (
            {"width": 6},
            r"of other networks: model.encoder.layers.0.weight is of shape \(4, 1, 4, 4\), not \(6,",
        ),
        ({"hidden": 0}, r"of other networks: model.encoder.head.weight is of shape"),
    ]:
        config = config_from(weights.defaults, {"dataset": str(other), **TINY, **settings})
        with pytest.raises(BadConfig, match=message):
            started(config, tmp_path / "run", weights)
        assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_discriminator_is_taken_from_a_run_and_fresh_from_a_model(
    config: Config, dataset: Dataset, tmp_path: Path
) -> None:
    """The same objective takes all networks of a run; a published model has no discriminator."""
    config = config_from({"dataset": config.dataset, **tiny(objective="vae-gan", epochs=1)})
    done = fit(config, dataset, tmp_path / "first")
    export_fitted((done, dataset), tmp_path / "models", "gan")
    for reference, words in [("first", ""), ("models/gan", "random ones in features, discriminator")]:
        weights = read_start_weights(str(tmp_path / reference))
        _, screen = started(config, tmp_path / Path(reference).name / "next", weights)
        (line,) = [line for line in screen.splitlines() if line.startswith("weights ")]
        assert line == f"weights    those of {weights.origin}" + (f"; {words}" if words else "")


def test_the_learned_sigma_comes_along(config: Config, dataset: Dataset, tmp_path: Path) -> None:
    """The likelihood's parameter is that of the manifest."""
    config = config_from({"dataset": config.dataset, **TINY, "likelihood": "gaussian", "epochs": 2})
    done = fit(config, dataset, tmp_path / "first")
    export_fitted((done, dataset), tmp_path / "models")
    weights = read_start_weights(str(tmp_path / "models" / "blobs"))
    own = averages(done)["likelihood.log_sigma"]
    assert torch.allclose(weights.tensors["likelihood.log_sigma"], own, atol=1e-6)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("nothing", r"--from: .*nothing is no run folder, and no model is published at"),
        ("models/tiny@9", r"is no run folder, and model .* has no version '9': it has 1"),
    ],
)
def test_what_is_no_source_is_refused(tmp_path: Path, reference: str, message: str) -> None:
    """The error says that there is neither a run nor a model, and which there are."""
    publish_tiny(tmp_path / "models")
    with pytest.raises(BadConfig, match=message):
        read_start_weights(str(tmp_path / reference))


def test_graphs_of_another_program_are_refused(tmp_path: Path) -> None:
    """Their weights have other names."""
    publish_tiny(tmp_path / "models")
    with pytest.raises(BundleError, match=r"its encoder\.onnx has no weights by the names that"):
        read_start_weights(str(tmp_path / "models" / "tiny"))


def test_a_damaged_model_is_refused(published_blobs: Published, tmp_path: Path) -> None:
    """A graph that differs from its checksum gives no weights."""
    shutil.copytree(published_blobs[0] / "blobs", tmp_path / "blobs")
    graph = tmp_path / "blobs" / "1" / "decoder.onnx"
    data = bytearray(graph.read_bytes())
    data[200] ^= 1
    graph.write_bytes(data)
    with pytest.raises(BundleError, match=r"--from: .*blobs/1: decoder.onnx is damaged"):
        read_start_weights(str(tmp_path / "blobs"))
