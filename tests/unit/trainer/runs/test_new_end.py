"""Runs that are given a later end: what they do, what they record, and which ends are refused."""

import dataclasses
import io
import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from convvae_trainer.commands.stored_run import StoredRun
from convvae_trainer.data.dataset import Dataset
from convvae_trainer.errors import BadRun, Interrupted
from convvae_trainer.runs.fit import Fitted, fit
from convvae_trainer.runs.folder import RunFolder
from convvae_trainer.runs.new_end import check_new_end
from convvae_trainer.runs.progress import TrainProgress
from convvae_trainer.runs.reproduce import repeatability, reproducing_commands
from convvae_trainer.runs.schedules import learning_rate
from convvae_trainer.runs.start import read_progress
from convvae_trainer.settings.assembly import config_from
from convvae_trainer.settings.config import Config
from support.interruption import Killed, before_step, kill
from support.run_comparison import assert_same, final, metrics
from support.tiny_run import tiny

STEPS_PER_EPOCH = 72 // 16


def longer(config: Config, epochs: int) -> Config:
    """Return the settings with another end."""
    return dataclasses.replace(config, epochs=epochs)


def extended(config: Config, dataset: Dataset, run_dir: Path, epochs: int, **more: Any) -> Fitted:
    """Resume a run with another end."""
    return fit(longer(config, epochs), dataset, run_dir, resume=True, extend=True, **more)


@pytest.fixture
def ended(config: Config, dataset: Dataset, tmp_path: Path) -> Path:
    """The folder of a run of four epochs that has ended."""
    fit(config, dataset, tmp_path / "run", command="first")
    return tmp_path / "run"


def test_an_ended_run_trains_to_its_new_end(config: Config, dataset: Dataset, ended: Path) -> None:
    """The steps go on, the figures are new, and the folder has the new end and a segment that says so."""
    before = final(ended)
    screen = io.StringIO()
    done = extended(config, dataset, ended, 6, console=Console(file=screen, width=200), command="second")
    assert done.progress.step == 6 * STEPS_PER_EPOCH
    assert (done.progress.epoch, done.progress.is_finished) == (6, True)
    assert any(not torch.equal(before[name], tensor) for name, tensor in final(ended).items())
    run = RunFolder.open(ended)
    assert run.config.epochs == 6
    assert run.read_evaluation() == done.evaluation.to_json_object()
    first, second = run.record.segments
    assert (first.end, first.follows_end) == ((4, None), False)
    assert (second.step, second.end, second.follows_end) == (4 * STEPS_PER_EPOCH, (6, None), True)
    assert [line["epoch"] for line in metrics(ended) if line["kind"] == "epoch"] == [1, 2, 3, 4, 5, 6]
    rate = learning_rate(longer(config, 6), 4 * STEPS_PER_EPOCH, 4 / 6)
    assert f"new end    6 epochs, of which 4 epochs are done; the learning rate goes on at {rate:.1e}" in (
        screen.getvalue()
    )


def test_the_learning_rate_is_that_of_a_run_of_the_new_length(
    config: Config, dataset: Dataset, ended: Path, tmp_path: Path
) -> None:
    """From the old end on it equals that of a run with the new end from the start."""
    fit(longer(config, 6), dataset, tmp_path / "whole")
    extended(config, dataset, ended, 6)
    rates, whole = (
        [line["learning_rate"] for line in metrics(folder) if line["kind"] == "epoch"]
        for folder in (ended, tmp_path / "whole")
    )
    assert rates[4:] == whole[4:]
    assert rates[3] < rates[4]


@pytest.mark.parametrize("settings", [{}, {"objective": "vae-gan", "adversarial_start": 0.3}])
def test_a_killed_extension_resumes_bit_by_bit(
    config: Config,
    dataset: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
) -> None:
    """It goes on to the new end without being told again, with the weights of one that nobody killed."""
    config = config_from({"dataset": config.dataset, **tiny(**settings)})
    for name in ("whole", "killed"):
        fit(config, dataset, tmp_path / name)
    extended(config, dataset, tmp_path / "whole", 6)
    with monkeypatch.context() as patch:
        before_step(patch, 4 * STEPS_PER_EPOCH + 2, kill)
        with pytest.raises(Killed):
            extended(config, dataset, tmp_path / "killed", 6)
    assert not StoredRun.load(tmp_path / "killed").has_ended
    assert RunFolder.open(tmp_path / "killed").read_evaluation() is None
    fit(longer(config, 6), dataset, tmp_path / "killed", resume=True)
    assert_same(tmp_path / "whole", tmp_path / "killed")


def test_a_run_that_was_stopped_gets_another_end(
    config: Config, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An end that was not reached moves, also to an earlier one; the record promises no equal weights."""
    with monkeypatch.context() as patch:
        before_step(patch, 5, lambda: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(Interrupted):
            fit(config, dataset, tmp_path / "run")
    done = extended(config, dataset, tmp_path / "run", 3)
    assert done.progress.step == 3 * STEPS_PER_EPOCH
    _, second = done.run.record.segments
    assert (second.step, second.end, second.follows_end) == (6, (3, None), False)
    assert "was moved before it was reached" in repeatability(done.run.config, done.run.record)


def test_a_run_that_stopped_early_goes_on(config: Config, dataset: Dataset, ended: Path) -> None:
    """Any later end continues it, the patience counts from there, and without an end it stays as it is."""
    path = ended / "checkpoint.safetensors"
    from convvae_trainer.runs.checkpoint import read_checkpoint, write_checkpoint

    tensors, state = read_checkpoint(path)
    progress = {**state["progress"], "is_stopped": True}
    write_checkpoint(path, tensors, {"progress": progress})
    run = RunFolder.open(ended)
    values = {**json.loads((ended / "config.json").read_text()), "epochs": 6}
    (ended / "config.json").write_text(json.dumps(values))
    stays = fit(longer(config, 6), dataset, ended, resume=True)
    assert stays.progress.step == 4 * STEPS_PER_EPOCH
    done = extended(run.config, dataset, ended, 6)
    assert done.progress.step == 6 * STEPS_PER_EPOCH
    assert (done.progress.is_stopped, done.progress.patience_epoch) == (False, 4)


def test_minutes_give_a_new_end_too(config: Config, dataset: Dataset, ended: Path) -> None:
    """Minutes replace epochs: they count from the start of the run."""
    before_s = read_progress(RunFolder.open(ended)).elapsed_s
    minutes = before_s / 60 + 0.005
    end = dataclasses.replace(config, epochs=None, minutes=minutes)
    done = fit(end, dataset, ended, resume=True, extend=True)
    assert done.progress.elapsed_s >= 60 * minutes
    assert done.progress.step > 4 * STEPS_PER_EPOCH
    assert done.run.record.segments[-1].end == (None, minutes)
    assert "Time limits the number of steps" in repeatability(done.run.config, done.run.record)


def test_the_same_end_trains_nothing(config: Config, dataset: Dataset, ended: Path) -> None:
    """The run stays as it is, with one segment."""
    before = final(ended)
    done = extended(config, dataset, ended, 4)
    assert all(torch.equal(before[name], tensor) for name, tensor in final(ended).items())
    assert len(done.run.record.segments) == 1


def test_another_end_is_refused_unless_it_is_asked_for(config: Config, dataset: Dataset, ended: Path) -> None:
    """A program that resumes with another number of epochs has to say that it means it."""
    with pytest.raises(BadRun, match="has epochs=4, not 6: resume it with its own settings"):
        fit(longer(config, 6), dataset, ended, resume=True)


@pytest.mark.parametrize(
    ("end", "message"),
    [
        ({"epochs": 3}, r"^the run has had 4 epochs: its new end, 3 epochs, must be later$"),
        (
            {"epochs": None, "minutes": 0.5},
            r"^the run has had 2.0 minutes: its new end, 0.5 minutes, must be",
        ),
        (
            {"epochs": 41},
            r"with an end of 41 epochs it would go back to the first phase of vae-gan, which is",
        ),
        ({"epochs": 41}, r"10 % of a run: give an end of 40 at most$"),
        ({"epochs": None, "minutes": 21.0}, r"of 21 minutes it would .* give an end of 20 at most$"),
    ],
)
def test_an_end_that_cannot_be_is_refused(config: Config, end: dict[str, Any], message: str) -> None:
    """It must be later than what is done, and may not lead back into an earlier phase."""
    own = config_from({"dataset": "digits", "objective": "vae-gan", "epochs": 4, "batch_size": 16})
    progress = TrainProgress(epoch=4, step=16, elapsed_s=120.0, is_finished=True)
    with pytest.raises(BadRun, match=message):
        check_new_end(own, dataclasses.replace(own, **end), progress, num_images=64)


def test_a_refused_end_changes_nothing(config: Config, dataset: Dataset, ended: Path) -> None:
    """All files of the run stay as they are."""
    before = {path: path.read_bytes() for path in sorted(ended.iterdir()) if path.is_file()}
    with pytest.raises(BadRun, match="must be later"):
        extended(config, dataset, ended, 2)
    assert {path: path.read_bytes() for path in sorted(ended.iterdir()) if path.is_file()} == before


def test_the_record_says_how_to_repeat_the_run(
    config: Config, dataset: Dataset, ended: Path, tmp_path: Path
) -> None:
    """The commands train to the first end and then to the new one, which gives the same weights."""
    done = extended(config, dataset, ended, 6, command="convvae-train fit --resume --epochs 6")
    assert reproducing_commands(done.run.record) == [
        "convvae-train fit --config config.json --epochs 4 --precision fp32 --threads 1 --run-dir NEW_FOLDER",
        "convvae-train fit --resume --epochs 6 --run-dir NEW_FOLDER",
    ]
    text = (ended / "reproduce.txt").read_text()
    for command in reproducing_commands(done.run.record):
        assert f"\n   {command}\n" in text
    assert f"From step {4 * STEPS_PER_EPOCH} on to 6 epochs, on cpu" in text
    assert "bit by bit" in text
    fit(config, dataset, tmp_path / "again")
    extended(config, dataset, tmp_path / "again", 6)
    assert_same(ended, tmp_path / "again")


def test_a_record_of_an_older_version_is_read(ended: Path) -> None:
    """Segments without an end have the run's own: older versions never moved it."""
    values = json.loads((ended / "run.json").read_text())
    for segment in values["segments"]:
        for name in ("epochs", "minutes", "follows_end"):
            del segment[name]
    (ended / "run.json").write_text(json.dumps(values))
    record = RunFolder.open(ended).record
    assert record.segments[0].end == (4, None)
    assert len(reproducing_commands(record)) == 1
