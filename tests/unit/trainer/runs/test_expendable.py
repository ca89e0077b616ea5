"""Training goes on without all that it can do without, and says so in one line."""

import dataclasses
import errno
import io
import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from convvae_trainer.data.dataset import Dataset
from convvae_trainer.errors import BadRun
from convvae_trainer.runs import checkpoint_saver
from convvae_trainer.runs.checkpoint import read_checkpoint, write_checkpoint
from convvae_trainer.runs.fit import Fitted, fit
from convvae_trainer.runs.folder import RunFolder
from convvae_trainer.runs.tensorboard import TensorBoardWriter
from convvae_trainer.settings.config import Config
from support.interruption import before_step
from support.run_comparison import assert_same, metrics

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full(*_: Any, **__: Any) -> None:
    raise FULL


def shown_by(config: Config, dataset: Dataset, run_dir: Path, **more: Any) -> str:
    """Train a run to its end, and return what it shows."""
    screen = io.StringIO()
    fit(config, dataset, run_dir, console=Console(file=screen, width=400), **more)
    return screen.getvalue()


def removed(folder: Path) -> None:
    shutil.rmtree(folder)


def a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.touch()


def another_folder(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


@pytest.mark.parametrize("spoil", [removed, a_file, another_folder])
def test_without_the_tensorboard_folder_training_goes_on(
    config: Config,
    dataset: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Path], None],
) -> None:
    """One line says so; no thread has an error, and the weights are those of an undisturbed run."""
    fit(config, dataset, tmp_path / "whole")
    threads: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", threads.append)
    before_step(monkeypatch, 6, lambda: spoil(tmp_path / "run" / "tensorboard"))
    text = shown_by(config, dataset, tmp_path / "run")
    line = f"no more TensorBoard files in {tmp_path / 'run' / 'tensorboard'}: "
    assert text.count(line) == text.count("TensorBoard") == 1
    assert "; training goes on" in text.partition(line)[2].partition("\n")[0]
    assert threads == []
    monkeypatch.undo()
    assert_same(tmp_path / "whole", tmp_path / "run")


@pytest.mark.parametrize("place", ["convvae_trainer.runs.event_file.EventFile.write", "pathlib.Path.touch"])
def test_a_full_disk_under_tensorboard(
    config: Config, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """From the start, or later."""
    monkeypatch.setattr(place, full)
    text = shown_by(dataclasses.replace(config, epochs=1), dataset, tmp_path / "run")
    assert text.count("TensorBoard") == 1
    assert "No space left on device; training goes on" in text


def test_tensorboard_that_cannot_be_loaded(
    config: Config, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installation with unsuitable packages raises whatever it likes."""

    def unsuitable(*_: Any, **__: Any) -> None:
        raise TypeError("Descriptors cannot be created directly.")

    monkeypatch.setattr(TensorBoardWriter, "__init__", unsuitable)
    text = shown_by(dataclasses.replace(config, epochs=1), dataset, tmp_path / "run")
    assert "no TensorBoard files: tensorboard cannot be loaded: Descriptors cannot be created" in text


def test_pictures_that_do_not_fit_in_memory(
    config: Config, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU whose memory is full with the training has none for pictures."""

    def no_memory(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(TensorBoardWriter, "_decode", no_memory)
    text = shown_by(dataclasses.replace(config, epochs=1), dataset, tmp_path / "run")
    assert text.count("no more TensorBoard files") == 1
    assert "CUDA out of memory; training goes on" in text


def test_metrics_that_cannot_be_written_follow_later(
    config: Config, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines wait in memory while the disk is full, so that none is missing; half a line never stays."""
    fit(config, dataset, tmp_path / "whole")
    path = tmp_path / "run" / "metrics.jsonl"

    def block() -> None:
        path.rename(path.with_name("aside"))
        path.mkdir()

    def unblock() -> None:
        path.rmdir()
        path.with_name("aside").rename(path)

    before_step(monkeypatch, 3, block)
    before_step(monkeypatch, 10, unblock)
    text = shown_by(config, dataset, tmp_path / "run")
    assert text.count(f"{path} cannot be written: Is a directory; training goes on\n") == 1
    assert text.count(f"{path} is written again, without a gap\n") == 1
    names = ("step", "elbo", "kind")
    assert [[line[name] for name in names] for line in metrics(tmp_path / "run")] == [
        [line[name] for name in names] for line in metrics(tmp_path / "whole")
    ]


def test_a_disk_that_takes_half_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is taken back, since it would hide all lines after it."""
    from convvae_trainer.runs.metrics_log import MetricsLog

    class Half(io.FileIO):
        """A file on a disk that has room for three more bytes."""

        def write(self, data: Any) -> int:
            if len(data) <= 3:
                raise FULL
            return super().write(data[:3])

    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, console=Console(file=io.StringIO()), lock=None)
    log.append({"step": 1})
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda self, *_, **__: Half(self, "ab"))
        log.append({"step": 2})
    assert path.read_text() == '{"step": 1}\n'
    log.append({"step": 3})
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3]


def test_a_checkpoint_that_fails_once_is_made_later(
    config: Config, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that was full for a while costs nothing but two lines."""
    calls: list[int] = []

    def sometimes(*arguments: Any) -> None:
        calls.append(len(calls))
        if len(calls) in (1, 3, 4):
            raise FULL
        write_checkpoint(*arguments)

    monkeypatch.setattr(checkpoint_saver, "write_checkpoint", sometimes)
    text = shown_by(config, dataset, tmp_path / "run", checkpoint_every_s=0)
    where = f"the checkpoint of step 4 in {tmp_path / 'run'} cannot be written: No space left on device"
    assert f"{where}; no checkpoint is saved; training goes on\n" in text
    assert "No space left on device; the last checkpoint is kept, that of step 8; training goes on\n" in text
    assert text.count("cannot be written") == 2
    assert read_checkpoint(tmp_path / "run" / "checkpoint.safetensors")[1]["progress"]["is_finished"]


def test_the_last_checkpoint_must_succeed(
    config: Config, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the run ends with an error that says what is kept; without a checkpoint nothing stays."""
    monkeypatch.setattr(checkpoint_saver, "write_checkpoint", full)
    with pytest.raises(BadRun, match=r"step 16 .*No space left on device; no checkpoint is saved$"):
        fit(config, dataset, tmp_path / "deep" / "run")
    assert not (tmp_path / "deep").exists()
    monkeypatch.undo()
    longer = dataclasses.replace(config, epochs=1)
    fit(longer, dataset, tmp_path / "run")
    state = read_checkpoint(tmp_path / "run" / "checkpoint.safetensors")[1]["progress"]
    path = tmp_path / "run" / "checkpoint.safetensors"
    write_checkpoint(path, read_checkpoint(path)[0], {"progress": {**state, "is_finished": False}})
    monkeypatch.setattr(checkpoint_saver, "write_checkpoint", full)
    with pytest.raises(BadRun, match=r"the last checkpoint is kept, that of step 4$"):
        fit(longer, dataset, tmp_path / "run", resume=True)


def test_figures_that_cannot_be_kept(
    fitted: tuple[Fitted, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The training is done and its figures are printed; a line says how to make the file later."""
    run_dir = shutil.copytree(fitted[0].run.path, tmp_path / "run")
    monkeypatch.setattr(RunFolder, "write_evaluation", full)
    text = shown_by(fitted[0].run.config, fitted[1], run_dir, resume=True)
    assert (
        f"figures not kept in {run_dir}: No space left on device; later: convvae-train evaluate {run_dir}\n"
        in text
    )
