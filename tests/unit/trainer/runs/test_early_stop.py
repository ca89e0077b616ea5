"""Early stopping: on images that are not trained on, with the best weights, across a resume."""

import dataclasses
import io
import json
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from convvae_trainer.data.dataset import Dataset, load_dataset
from convvae_trainer.errors import Interrupted
from convvae_trainer.evaluation.image_quality import QualityAccumulator
from convvae_trainer.evaluation.metrics import evaluate
from convvae_trainer.evaluation.validation import validation_terms
from convvae_trainer.exports.publish import export
from convvae_trainer.runs.checkpoint import read_checkpoint
from convvae_trainer.runs.fit import Fitted, fit
from convvae_trainer.runs.start import load_run
from convvae_trainer.settings.assembly import config_from
from convvae_trainer.settings.config import Config
from convvae_trainer.step.train_state import TrainState
from support.tiny_run import TINY

STEPS_PER_EPOCH = 64 // 16
TURN = 2
PATIENCE = 3


class Killed(BaseException):
    """Stands for a kill: nothing of the program runs after it."""


@pytest.fixture
def config(blobs: Path) -> Config:
    """A run that would take 30 epochs, and stops three after its best."""
    quick = {"learning_rate": 0.01, "warmup_steps": 1, "validation_share": 0.1}
    return config_from({"dataset": str(blobs), **TINY, **quick, "epochs": 30, "early_stop_epochs": PATIENCE})


@pytest.fixture
def dataset(config: Config) -> Dataset:
    """The images of `blobs`, of which 64 are for training and 6 for validation."""
    return load_dataset(config)


@pytest.fixture(autouse=True)
def worse_after_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have steps after the second epoch drive the rate up, not down, which soon costs more than it gains."""

    def beta(_: Config, epochs: float) -> float:
        return 1.0 if epochs < TURN else -1000.0

    monkeypatch.setattr("convvae_trainer.runs.loop.effective_beta", beta)


def validation_elbos(run_dir: Path) -> list[float]:
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [line["validation_elbo"] for line in lines if line["kind"] == "epoch"]


def assert_same(first: Path, second: Path) -> None:
    (one, state), (other, other_state) = (
        read_checkpoint(path / "checkpoint.safetensors") for path in (first, second)
    )
    assert one.keys() == other.keys()
    assert any(name.startswith("best.") for name in one)
    assert all(torch.equal(one[name], other[name]) for name in one)
    for values in (state, other_state):
        del values["progress"]["elapsed_s"]
    assert state == other_state
    assert validation_elbos(first) == validation_elbos(second)


@pytest.mark.slow
def test_it_stops_with_the_best_weights(config: Config, dataset: Dataset, tmp_path: Path) -> None:
    """Three epochs after the best one the run ends, says so, and evaluates and exports the best weights."""
    console = Console(file=io.StringIO(), width=200)
    done = fit(config, dataset, tmp_path / "run", console=console)
    elbos = validation_elbos(tmp_path / "run")
    best = elbos.index(max(elbos)) + 1
    assert 1 < best < len(elbos) == best + PATIENCE == done.progress.epoch < 30
    assert (done.progress.best_epoch, done.progress.best_elbo) == (best, max(elbos))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "validation 6 of 70 training images, by the hash of their pixels" in text
    words = (
        rf"stopped early after epoch {best + PATIENCE}: the weights after epoch {best} are kept, .* nats\)"
    )
    assert re.search(words, text)
    assert dataset.validation is not None
    _, loaded, _ = load_run(tmp_path / "run")
    again = evaluate(loaded, dataset.validation, dataset="", binarize="none")
    assert again.bound.elbo == pytest.approx(max(elbos), abs=1e-4)
    assert (
        evaluate(loaded, dataset.test, dataset="", binarize="none").bound.elbo == done.evaluation.bound.elbo
    )
    figures = done.evaluation.to_json_object()
    models = tmp_path / "models"
    exported = export(done.run, loaded, dataset, done.progress, figures, models=models, name="blobs")
    training = exported.manifest.training
    assert training.metrics["test_elbo_nats"] == done.evaluation.bound.elbo
    assert (training.epochs, training.metrics["training_best_epoch"]) == (best + PATIENCE, best)
    card = " ".join((exported.folder / "MODEL_CARD.md").read_text().split())
    epochs = f"{best + PATIENCE} epochs; the weights are those after epoch {best}, which were the best."
    assert epochs in card


@pytest.mark.slow
def test_a_bundle_says_what_was_trained_on(config: Config, dataset: Dataset, tmp_path: Path) -> None:
    """Images and epochs leave out those that validate: 64 images are 3 steps of 17, and 70 would be 4."""
    config = dataclasses.replace(config, batch_size=17, epochs=2)
    done = fit(config, dataset, tmp_path / "run")
    figures, models = done.evaluation.to_json_object(), tmp_path / "models"
    exported = export(
        done.run, done.train_state, dataset, done.progress, figures, models=models, name="blobs"
    )
    assert done.progress.step == 2 * 3
    training = exported.manifest.training
    assert (training.images, training.epochs) == (64, 2.0)
    card = (exported.folder / "MODEL_CARD.md").read_text()
    assert "| Training images | 64 |" in card
    assert "| Validation images | 6: 6 of 70 training images, by the hash of their pixels |" in card


@pytest.mark.parametrize("settings", [{}, {"objective": "ae"}, {"binarize": "dynamic"}])
def test_the_bound_is_that_of_an_evaluation(dataset: Dataset, settings: dict[str, Any]) -> None:
    """Validation gives the same number, and decodes each image once: no reconstructions, no samples."""
    config = config_from({"dataset": dataset.name, **TINY, **settings})
    train_state = TrainState(config, shape=dataset.image.as_tuple, device=torch.device("cpu"))
    whole = evaluate(train_state, dataset.train, dataset="", binarize=config.binarize)
    decoded: list[int] = []
    train_state.model.decoder.register_forward_hook(lambda *call: decoded.append(len(call[-1])))
    terms = validation_terms(train_state, dataset.train, binarize=config.binarize)
    expected = {"elbo": whole.bound.elbo, "distortion": whole.bound.distortion, "rate": whole.bound.rate}
    assert terms == {name: value for name, value in expected.items() if value is not None}
    assert sum(decoded) == len(dataset.train)


def test_validation_takes_the_bound_alone(
    config: Config, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run measures the quality of images once, of its test images."""
    sizes: list[int] = []
    tally = QualityAccumulator.add

    def noted(self: QualityAccumulator, x_BCHW: torch.Tensor, made_BCHW: torch.Tensor) -> None:
        sizes.append(len(x_BCHW))
        tally(self, x_BCHW, made_BCHW)

    monkeypatch.setattr(QualityAccumulator, "add", noted)
    fit(dataclasses.replace(config, epochs=2), dataset, tmp_path / "run")
    assert sizes == [len(dataset.test)]


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"ema_decay": 0.0}])
@pytest.mark.parametrize("step", [1 * STEPS_PER_EPOCH + 2, 4 * STEPS_PER_EPOCH + 1])
def test_a_resumed_run_goes_on_counting(
    config: Config,
    dataset: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    step: int,
) -> None:
    """Stopped or killed before the best epoch or after it, the run ends as one that was never stopped."""
    config = dataclasses.replace(config, **settings)
    fit(config, dataset, tmp_path / "whole")
    one_step = TrainState.step

    def kill() -> None:
        raise Killed

    for name, act, error in (
        ("stopped", lambda: signal.raise_signal(signal.SIGTERM), Interrupted),
        ("killed", kill, Killed),
    ):

        def wrapped(self: TrainState, *args: Any, act: Any = act, **kwargs: Any) -> None:
            if self.num_steps == step:
                act()
            one_step(self, *args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(TrainState, "step", wrapped)
            with pytest.raises(error):
                fit(config, dataset, tmp_path / name, checkpoint_every_s=0)
        fit(config, dataset, tmp_path / name, resume=True)
        assert_same(tmp_path / "whole", tmp_path / name)


def test_a_finished_run_resumes_to_itself(config: Config, dataset: Dataset, tmp_path: Path) -> None:
    """A run that stopped early trains no further, and keeps its figures."""
    first = fit(config, dataset, tmp_path / "run")
    again = fit(config, dataset, tmp_path / "run", resume=True)
    assert again.evaluation == first.evaluation
    assert again.progress == first.progress


def test_validation_images_are_never_trained_on(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every other training image is, and none of the test images."""
    images = np.zeros((80, 12, 10), dtype=np.uint8)
    images[:, 0, 0] = np.arange(80)
    images[:, 4:9, 4:9] = 200
    np.save(tmp_path / "numbered.npy", images)
    config = dataclasses.replace(config, dataset=str(tmp_path / "numbered.npy"), epochs=8)
    dataset = load_dataset(config)
    seen: set[int] = set()
    step = TrainState.step

    def noting(self: TrainState, image_BCHW: torch.Tensor, **kwargs: Any) -> None:
        seen.update(image_BCHW[:, 0, 0, 0].tolist())
        step(self, image_BCHW, **kwargs)

    monkeypatch.setattr(TrainState, "step", noting)
    monkeypatch.setattr("convvae_trainer.runs.loop.effective_beta", lambda *_: 1.0)
    done = fit(config, dataset, tmp_path / "run")
    assert done.progress.epoch == 8
    assert dataset.validation is not None
    parts = (dataset.train, dataset.validation, dataset.test)
    numbers = [set(part[:, 0, 0, 0].tolist()) for part in parts]
    assert [len(part) for part in numbers] == [63, 7, 10]
    assert set.union(*numbers) == set(range(80))
    assert seen == numbers[0]


def test_a_run_that_gets_no_worse_is_not_stopped(
    config: Config, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It trains to its end, and says which weights it kept; an autoencoder's figure is its distortion."""
    monkeypatch.setattr("convvae_trainer.runs.loop.effective_beta", lambda *_: 1.0)
    console = Console(file=io.StringIO(), width=200)
    short = dataclasses.replace(config, objective="ae", epochs=2)
    done: Fitted = fit(short, dataset, tmp_path / "run", console=console)
    assert (done.progress.epoch, done.progress.best_epoch, done.progress.is_stopped) == (2, 2, False)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "not stopped early: the weights after epoch 2 are kept" in text
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["validation_distortion"] == -(done.progress.best_elbo or 0.0) > 0
    assert "validation_elbo" not in last
