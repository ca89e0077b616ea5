"""A whole run: it learns, records what it did, ends in time, and overwrites nothing."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from convvae_trainer.data.dataset import Dataset, load_dataset
from convvae_trainer.errors import BadRun
from convvae_trainer.runs.fit import Fitted, fit
from convvae_trainer.runs.live_display import LiveDisplay
from convvae_trainer.runs.loop import TrainingLoop
from convvae_trainer.runs.progress import TrainProgress
from convvae_trainer.settings.config import Config
from convvae_trainer.step.train_state import TrainState
from support.run_comparison import assert_same, final, metrics
from support.training_parts import training_parts


def test_training_lowers_the_loss(fitted: tuple[Fitted, Dataset]) -> None:
    """The ELBO rises from epoch to epoch, and the run folder holds what was promised."""
    done, dataset = fitted
    lines = metrics(done.run.path)
    epochs = [line["elbo"] for line in lines if line["kind"] == "epoch"]
    assert len(epochs) == 4
    assert epochs == sorted(epochs)
    assert [line["step"] for line in lines if line["kind"] == "step"] == [1, 2, 4, 8, 16]
    assert {path.name for path in done.run.path.iterdir()} == {
        "run.json",
        "config.json",
        "metrics.jsonl",
        "checkpoint.safetensors",
        "trained_on.bin",
        "evaluation.json",
        "reproduce.txt",
        "tensorboard",
    }
    record = json.loads((done.run.path / "run.json").read_text())
    assert record["data"]["split"] == dataset.split
    assert record["data"]["sha256"] == dataset.fingerprint()
    assert record["segments"][0]["libraries"]["torch"]
    text = (done.run.path / "reproduce.txt").read_text()
    assert "convvae-train fit --config config.json --precision fp32 --threads 1 --run-dir" in text
    assert dataset.fingerprint() in text


def test_nothing_is_overwritten(config: Config, dataset: Dataset, tmp_path: Path) -> None:
    """A folder that holds a run, or anything else, is refused; so is a file, and a resume of no run."""
    fit(config, dataset, tmp_path / "run")
    before = (tmp_path / "run" / "checkpoint.safetensors").read_bytes()
    with pytest.raises(BadRun, match="already holds a run: --resume continues it"):
        fit(config, dataset, tmp_path / "run")
    assert (tmp_path / "run" / "checkpoint.safetensors").read_bytes() == before
    with pytest.raises(BadRun, match="is not empty and holds no run"):
        fit(config, dataset, tmp_path)
    with pytest.raises(BadRun, match=r"blobs\.npy is a file"):
        fit(config, dataset, tmp_path / "blobs.npy")
    with pytest.raises(BadRun, match=r"run folder .*absent does not exist"):
        fit(config, dataset, tmp_path / "absent", resume=True)


def test_minutes_end_the_run(config: Config, dataset: Dataset, tmp_path: Path) -> None:
    """With `minutes` the run ends when its time is over, wherever it is."""
    timed = dataclasses.replace(config, epochs=None, minutes=0.01)
    done = fit(timed, dataset, tmp_path / "run")
    assert 0.6 <= done.progress.elapsed_s < 5
    assert done.progress.step > 0


def test_averaged_weights_are_put_back(fitted: tuple[Fitted, Dataset]) -> None:
    """Evaluation uses the averaged weights, and leaves those in training as they were."""
    train_state = fitted[0].train_state
    before = train_state.model.encoder.head.weight.detach().clone()
    with train_state.ema.swapped_in():
        assert not torch.equal(before, train_state.model.encoder.head.weight)
    assert torch.equal(before, train_state.model.encoder.head.weight)


def test_seeds_differ(config: Config, dataset: Dataset, tmp_path: Path) -> None:
    """The same seed gives the same run, another seed another one."""
    short = dataclasses.replace(config, epochs=1)
    fit(short, dataset, tmp_path / "a")
    fit(short, load_dataset(short), tmp_path / "b")
    fit(dataclasses.replace(short, seed=1), dataset, tmp_path / "c")
    assert_same(tmp_path / "a", tmp_path / "b")
    name = "weights.model.encoder.head.weight"
    assert not torch.equal(final(tmp_path / "a")[name], final(tmp_path / "c")[name])


def test_the_precision_is_recorded_with_its_reason(
    config: Config, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`auto` follows from the hardware; a resumed run keeps it, also on other hardware."""
    auto = dataclasses.replace(config, precision="auto", epochs=1)
    monkeypatch.setattr("convvae_trainer.compute.precision._has_bf16", lambda _: True)
    done = fit(auto, dataset, tmp_path / "run")
    record = done.run.record
    assert (record.precision, record.reason) == ("bf16", "this CPU has bf16 instructions")
    assert record.threads == 1
    assert done.train_state.autocast is torch.bfloat16
    monkeypatch.setattr("convvae_trainer.compute.precision._has_bf16", lambda _: False)
    assert fit(auto, dataset, tmp_path / "run", resume=True).train_state.autocast is torch.bfloat16
    other = fit(auto, dataset, tmp_path / "other")
    assert (other.run.record.precision, other.train_state.autocast) == ("fp32", None)


def test_images_are_held_once(fitted: tuple[Fitted, Dataset]) -> None:
    """On a CPU training indexes the images where they lie, in colour too."""
    done, _ = fitted
    images = np.random.default_rng(0).integers(0, 256, (32, 12, 10, 3), dtype=np.uint8)
    train_state = TrainState(done.run.config, shape=(12, 10, 3), device=torch.device("cpu"))
    console = Console(quiet=True)
    context, run = training_parts(done.run.config, images, done.run.path, console=console)
    loop = TrainingLoop(
        context=context,
        run=run,
        train_state=train_state,
        progress=TrainProgress(),
        display=LiveDisplay(console, total_epochs=1),
        signals=[],
        board=None,
        checkpoint_every_s=20.0,
    )
    assert loop.images.data_ptr() == images.ctypes.data
