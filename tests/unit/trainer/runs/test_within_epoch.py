"""Checkpoints within an epoch: a kill in a long one loses little, and what goes on is bit by bit the same."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from convvae_trainer.data.dataset import Dataset, load_dataset
from convvae_trainer.runs.checkpoint import read_checkpoint
from convvae_trainer.runs.fit import fit
from convvae_trainer.settings.assembly import config_from, to_json_object
from convvae_trainer.settings.config import Config
from support.commands import run_two
from support.interruption import Killed, before_step, kill
from support.run_comparison import assert_near, assert_same, metrics
from support.tiny_run import tiny

# Looks every second step, and is killed before the eighth, the last one of the second epoch.
TRAINING = """
import json, os, signal, sys
from pathlib import Path
import torch
from convvae_trainer.runs import loop as train
from convvae_trainer.settings.assembly import config_from
from convvae_trainer.data.dataset import load_dataset
from convvae_trainer.compute.distributed import joined
from convvae_trainer.compute.process import configure_process
from convvae_trainer.runs.fit import fit
from convvae_trainer.step.train_state import TrainState

configure_process(threads=1)
train.CHECK_EVERY_STEPS = 2
step = TrainState.step
def wrapped(self, *args, **kwargs):
    if self.num_steps == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    step(self, *args, **kwargs)
TrainState.step = wrapped
config = config_from(json.loads(sys.argv[2]))
with joined(torch.device("cpu")) as dist:
    # To the second process's own clock no checkpoint is ever due.
    every_s = 1e9 if dist.rank else 0
    fit(config, load_dataset(config), Path(sys.argv[1]), dist=dist, checkpoint_every_s=every_s)
"""


def position_of(run_dir: Path) -> dict[str, Any]:
    progress: dict[str, Any] = read_checkpoint(run_dir / "checkpoint.safetensors")[1]["progress"]
    return progress


def arguments(config: Config, run_dir: Path) -> list[str]:
    return [str(run_dir), json.dumps(to_json_object(config))]


@pytest.mark.slow
def test_a_run_that_is_killed_within_an_epoch_loses_little(
    config: Config, dataset: Dataset, tmp_path: Path
) -> None:
    """SIGKILL leaves the checkpoint of two steps ago; from there on the run is that which was not killed."""
    run_dir = tmp_path / "killed"
    done = subprocess.run(
        [sys.executable, "-c", TRAINING, *arguments(config, run_dir)], capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    progress = position_of(run_dir)
    assert (progress["epoch"], progress["step_in_epoch"], progress["step"]) == (1, 2, 6)
    fit(config, dataset, run_dir, resume=True)
    fit(config, dataset, tmp_path / "whole")
    assert_same(tmp_path / "whole", run_dir)


@pytest.mark.parametrize(
    ("settings", "step"),
    [
        ({"binarize": "dynamic"}, 4),
        ({"early_stop_epochs": 2, "validation_share": 0.1}, 6),
        ({"objective": "vae-gan", "adversarial_start": 0.3}, 7),
        ({"objective": "vae-disl", "gan_share": 0.4}, 7),
    ],
)
def test_every_objective_goes_on_within_an_epoch(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], step: int
) -> None:
    """Wherever the kill falls, right after an epoch's end too, weights and metrics end the same."""
    config = config_from({"dataset": dataset.name, **tiny(**settings)})
    data = load_dataset(config)
    fit(config, data, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr("convvae_trainer.runs.loop.CHECK_EVERY_STEPS", 1)
        before_step(patch, step, kill)
        with pytest.raises(Killed):
            fit(config, data, tmp_path / "killed", checkpoint_every_s=0)
    assert position_of(tmp_path / "killed")["step"] == step
    fit(config, data, tmp_path / "killed", resume=True)
    assert_same(tmp_path / "whole", tmp_path / "killed")
    epochs = [line for line in metrics(tmp_path / "killed") if line["kind"] == "epoch"]
    assert len(epochs) == len({line["step"] for line in epochs})


@pytest.mark.slow
def test_two_processes_agree_on_a_checkpoint(config: Config, dataset: Dataset, tmp_path: Path) -> None:
    """The first one's clock decides, and one process goes on from what both had."""
    run_dir = tmp_path / "two"
    run_two(arguments(config, run_dir), code=TRAINING)
    assert position_of(run_dir)["step"] == 6
    fit(config, dataset, run_dir, resume=True)
    fit(config, dataset, tmp_path / "one")
    assert_near(tmp_path / "one", run_dir)
    for one, two in zip(metrics(tmp_path / "one"), metrics(run_dir), strict=True):
        assert two["elbo"] == pytest.approx(one["elbo"], rel=1e-3)


@pytest.mark.slow
def test_saving_is_no_training_time(
    config: Config, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is slow does not shorten a run of so many minutes."""

    def slow(*_: Any) -> None:
        time.sleep(0.5)

    monkeypatch.setattr("convvae_trainer.runs.loop.CHECK_EVERY_STEPS", 1)
    monkeypatch.setattr("convvae_trainer.runs.checkpoint_saver.write_checkpoint", slow)
    began = time.perf_counter()
    done = fit(config, dataset, tmp_path / "run", checkpoint_every_s=0)
    assert time.perf_counter() - began - done.progress.elapsed_s > 0.4 * done.progress.step
