"""The record of a run: which code and hardware computed which steps."""

import dataclasses
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from convvae_trainer.data.dataset import Dataset
from convvae_trainer.errors import BadRun, Interrupted
from convvae_trainer.exports.publish import export
from convvae_trainer.runs.fit import Fitted, fit
from convvae_trainer.runs.folder import RunFolder
from convvae_trainer.runs.record import RunRecord
from convvae_trainer.runs.reproduce import repeatability, reproducing_commands
from convvae_trainer.settings.config import Config
from support.interruption import Killed, before_step, kill


def stopped(config: Config, dataset: Dataset, run_dir: Path, *, step: int, **more: Any) -> None:
    """Train up to a step, and be stopped there."""
    with pytest.MonkeyPatch.context() as patch:
        before_step(patch, step, lambda: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(Interrupted):
            fit(config, dataset, run_dir, **more)


def record_of(run_dir: Path) -> Any:
    return json.loads((run_dir / "run.json").read_text())


def resumed(config: Config, dataset: Dataset, run_dir: Path, patch: pytest.MonkeyPatch) -> Fitted:
    """Go on as another machine with another torch would."""
    patch.setattr("convvae_trainer.runs.start.hardware", lambda: "another processor, 3 cores")
    patch.setattr("convvae_trainer.runs.start.library_versions", lambda: {"python": "3", "torch": "99.0"})
    patch.setattr("convvae_trainer.runs.start.code_commit", lambda: "c0ffee")
    return fit(config, dataset, run_dir, resume=True, command="convvae-train fit --resume")


def test_each_segment_is_recorded(
    config: Config, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start stays as it was; the resume has its step, command, hardware, versions and date."""
    run_dir = tmp_path / "run"
    stopped(config, dataset, run_dir, step=6, command="convvae-train fit")
    before = record_of(run_dir)
    assert [segment["step"] for segment in before["segments"]] == [0]
    done = resumed(config, dataset, run_dir, monkeypatch)
    after = record_of(run_dir)
    start, second = after.pop("segments")
    assert [start] == before.pop("segments")
    assert after == before
    assert start["command"] == before["command"] == "convvae-train fit"
    assert second.pop("date") >= start["date"]
    assert second == {
        "step": 7,
        "command": "convvae-train fit --resume",
        "commit": "c0ffee",
        "libraries": {"python": "3", "torch": "99.0"},
        "hardware": "another processor, 3 cores",
        "device": "cpu",
        "processes": 1,
        "epochs": 4,
        "minutes": None,
        "follows_end": False,
    }
    assert "2 segments that differ" in repeatability(config, done.run.record)
    text = (run_dir / "reproduce.txt").read_text()
    assert "From step 7 on, on cpu (another processor, 3 cores): convvae-train fit --resume" in text
    assert "bit by bit" not in text


@pytest.mark.slow
def test_a_bundle_says_what_trained_it(
    config: Config, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Manifest and card name versions, commits and hardware of all segments, and promise no equal weights."""
    run_dir = tmp_path / "run"
    stopped(config, dataset, run_dir, step=6)
    (own,) = record_of(run_dir)["segments"]
    done = resumed(config, dataset, run_dir, monkeypatch)
    figures = done.evaluation.to_json_object()
    made = export(
        done.run, done.train_state, dataset, done.progress, figures, models=tmp_path / "m", name="x"
    )
    training = made.manifest.training
    assert training.libraries["torch"] == f"{own['libraries']['torch']}, 99.0"
    assert training.libraries["numpy"] == own["libraries"]["numpy"]
    assert training.commit == ", ".join(filter(None, (own["commit"], "c0ffee")))
    assert training.metrics["training_device"] == "cpu"
    card = (made.folder / "MODEL_CARD.md").read_text()
    assert f"| 0 | cpu | {own['hardware']} | fp32 | 1 | {own['date']} |" in card
    assert "| 7 | cpu | another processor, 3 cores | fp32 | 1 |" in card
    assert "2 segments that differ" in card
    assert "bit by bit" not in card


def test_a_run_that_has_ended_has_no_further_segment(fitted: tuple[Fitted, Dataset], tmp_path: Path) -> None:
    """A resume of it trains nothing."""
    done, dataset = fitted
    run_dir = tmp_path / "run"
    fit(done.run.config, dataset, run_dir)
    before = record_of(run_dir)
    fit(done.run.config, dataset, run_dir, resume=True)
    assert record_of(run_dir) == before
    assert "bit by bit" in (run_dir / "reproduce.txt").read_text()


def test_a_segment_without_a_step_is_dropped(
    config: Config, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that was killed before its first checkpoint produced none of the weights."""
    run_dir = tmp_path / "run"
    stopped(config, dataset, run_dir, step=6)
    with monkeypatch.context() as patch:
        before_step(patch, 9, kill)
        with pytest.raises(Killed):
            fit(config, dataset, run_dir, resume=True, command="lost")
    assert [segment["command"] for segment in record_of(run_dir)["segments"]] == ["", "lost"]
    fit(config, dataset, run_dir, resume=True, command="kept")
    assert [(segment["step"], segment["command"]) for segment in record_of(run_dir)["segments"]] == [
        (0, ""),
        (7, "kept"),
    ]


def test_a_run_is_made_again_with_what_computed_it(
    config: Config, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record names neither code nor versions of a start that was killed before its first checkpoint."""
    with monkeypatch.context() as patch:
        before_step(patch, 2, kill)
        with pytest.raises(Killed):
            fit(config, dataset, tmp_path / "run", command="convvae-train fit")
    done = resumed(config, dataset, tmp_path / "run", monkeypatch)
    assert [segment.step for segment in done.run.record.segments] == [0]
    text = (tmp_path / "run" / "reproduce.txt").read_text()
    assert "  python 3\n  torch 99.0\n   code at commit c0ffee\n" in text
    assert "The command that started this run: convvae-train fit\n" in text
    assert "From step 0 on, on cpu (another processor, 3 cores): convvae-train fit --resume\n" in text
    assert "bit by bit" in text


def test_another_number_of_processes_promises_no_equal_weights(
    config: Config, dataset: Dataset, tmp_path: Path
) -> None:
    """Two processes add up a batch in another order than one, on the same machine too."""
    stopped(config, dataset, tmp_path / "run", step=6)
    done = fit(config, dataset, tmp_path / "run", resume=True)
    assert "bit by bit" in repeatability(config, done.run.record)
    first, second = done.run.record.segments
    segments = (dataclasses.replace(first, processes=2), second)
    record = dataclasses.replace(done.run.record, segments=segments)
    assert "2 segments that differ in device, hardware, number of processes" in repeatability(config, record)
    assert reproducing_commands(record)[0].startswith("torchrun --nproc-per-node 2 ")


@pytest.mark.parametrize("segments", [None, [], [7], [{"step": 0}], "x"])
def test_damaged_segments_are_refused(fitted: tuple[Fitted, Dataset], tmp_path: Path, segments: Any) -> None:
    """The run's record is said to be damaged, by its path."""
    run = fitted[0].run
    for name in ("config.json", "run.json"):
        (tmp_path / name).write_bytes((run.path / name).read_bytes())
    values = {**run.record.to_json_object(), "segments": segments}
    (tmp_path / "run.json").write_text(json.dumps(values))
    with pytest.raises(BadRun, match=r"run\.json is damaged: '\w+' is "):
        RunFolder.open(tmp_path)


def test_what_differs_between_segments_is_listed_once(fitted: tuple[Fitted, Dataset]) -> None:
    """Values and versions keep their order, and equal ones are one."""
    (segment,) = fitted[0].run.record.segments
    segments = [
        dataclasses.replace(segment, device=device, libraries={"a": "1", device: "2"}) for device in "xyx"
    ]
    segments.append(dataclasses.replace(segment, device="z", libraries={"a": "3"}))
    record = dataclasses.replace(fitted[0].run.record, segments=tuple(segments))
    assert record.distinct("device") == ["x", "y", "z"]
    assert record.libraries == {"a": "1, 3", "x": "2", "y": "2"}


def test_a_record_reads_back_as_it_was(fitted: tuple[Fitted, Dataset]) -> None:
    """JSON keeps every field, and has the run's precision, threads and the reason for the precision."""
    record = fitted[0].run.record
    values = json.loads(json.dumps(record.to_json_object()))
    assert RunRecord.from_json_object(values) == record
    assert [values[name] for name in ("precision", "threads")] == ["fp32", 1]
    assert values["reason"] == "precision is set to fp32"
