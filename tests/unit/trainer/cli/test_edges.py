"""The command at its edges: early signals, a closed screen, full disks, and names that are not UTF-8."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from convvae_trainer.data.dataset import Dataset
from convvae_trainer.runs.checkpoint import replace_file
from convvae_trainer.runs.fit import Fitted
from convvae_trainer.runs.signals import Stopped, noted_signals, raise_on_signals
from convvae_trainer.streams import printable
from support.commands import run_train
from support.folder_sync import refuse_folder_sync
from support.interrupted_imports import interrupted
from support.interruption import before_step
from support.tiny_run import SHORT

# Each test starts programs.
pytestmark = pytest.mark.slow

NUMBERS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture
def handlers() -> Iterator[None]:
    """Restore the handlers of signals."""
    before = {number: signal.getsignal(number) for number in NUMBERS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@contextmanager
def full_stdout() -> Iterator[None]:
    """Make stdout a file on a full disk."""
    with open("/dev/full", "w") as file, redirect_stdout(file):  # noqa: PTH123 - a device
        yield


@pytest.mark.parametrize(
    ("module", "number"),
    [("typer", signal.SIGINT), ("convvae_trainer.cli.app", signal.SIGHUP), ("torch.nn", signal.SIGTERM)],
)
def test_a_signal_during_the_imports_is_one_line(
    tmp_path: Path, blobs: Path, module: str, number: signal.Signals
) -> None:
    """The command ends at once with the signal's exit code; nothing is made."""
    words = ["fit", "--dataset", str(blobs), "--run-dir", str(tmp_path / "run"), *SHORT]
    done = interrupted("convvae_trainer", module, number, *words)
    assert (done.returncode, done.stderr) == (128 + number, f"stopped by {number.name}\n")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_while_data_are_read_leaves_nothing(
    tmp_path: Path,
    blobs: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
) -> None:
    """There is no checkpoint, and no line says that one is kept."""

    def stop(*_: Any, **__: Any) -> None:
        signal.raise_signal(number)

    monkeypatch.setattr("convvae_trainer.commands.fit.load_dataset", stop)
    words = ["fit", "--dataset", str(blobs), "--run-dir", str(tmp_path / "run"), *SHORT]
    assert run_train(monkeypatch, *words) == 128 + number
    assert capsys.readouterr().err == f"stopped by {number.name}\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_before_the_first_step_can_be_resumed(
    tmp_path: Path,
    blobs: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
) -> None:
    """Once there is a run folder, it gets a checkpoint; the line names the command that goes on."""

    def stop(*_: Any) -> list[str]:
        signal.raise_signal(number)
        return []

    run_dir = tmp_path / "run"
    words = ["fit", "--dataset", str(blobs), "--run-dir", str(run_dir), *SHORT]
    with monkeypatch.context() as patch:
        patch.setattr("convvae_trainer.runs.fit.summary_lines", stop)
        assert run_train(monkeypatch, *words) == 128 + number
    assert capsys.readouterr().err == (
        f"stopped by {number.name} at step 0; a checkpoint is saved:"
        f" convvae-train fit --resume --run-dir {run_dir}\n"
    )
    assert run_train(monkeypatch, "fit", "--resume", "--run-dir", str(run_dir)) == 0
    assert "resuming at step 0" in capsys.readouterr().out


def test_a_second_signal_ends_a_run_without_leftovers(
    tmp_path: Path, blobs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the first checkpoint is written there is none to keep."""

    def stop_twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    before_step(monkeypatch, 2, stop_twice)
    words = ["fit", "--dataset", str(blobs), "--run-dir", str(tmp_path / "run"), *SHORT, "--batch-size", "8"]
    assert run_train(monkeypatch, *words) == 130
    assert capsys.readouterr().err == "stopped by SIGINT\n"
    assert not (tmp_path / "run").exists()


def test_a_signal_during_the_last_evaluation_keeps_the_run(
    tmp_path: Path, blobs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of the training is done; the line names the command that evaluates and exports."""

    def stop(*_: Any, **__: Any) -> None:
        signal.raise_signal(signal.SIGHUP)

    monkeypatch.setattr("convvae_trainer.runs.fit._evaluate", stop)
    run_dir = tmp_path / "run"
    assert run_train(monkeypatch, "fit", "--dataset", str(blobs), "--run-dir", str(run_dir), *SHORT) == 129
    assert capsys.readouterr().err == (
        f"stopped by SIGHUP; the last checkpoint is kept: convvae-train fit --resume --run-dir {run_dir}\n"
    )


@pytest.mark.usefixtures("handlers")
def test_an_ignored_hangup_stays_ignored() -> None:
    """Under nohup, a terminal that is closed ends nothing."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    raise_on_signals()
    with noted_signals() as noted:
        signal.raise_signal(signal.SIGHUP)
        assert noted == []
    signal.raise_signal(signal.SIGHUP)
    with pytest.raises(Stopped):
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.usefixtures("handlers")
def test_a_hangup_that_comes_twice_is_one() -> None:
    """The shell sends it, and the system when the shell ends."""
    raise_on_signals()
    with noted_signals() as noted:
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)
        assert set(noted) == {signal.SIGHUP}
    with pytest.raises(Stopped):
        signal.raise_signal(signal.SIGHUP)
    signal.raise_signal(signal.SIGHUP)


def test_training_goes_on_without_a_screen(
    tmp_path: Path, blobs: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A reader that has gone, or a log on a full disk, is one line on stderr."""
    run_dir = tmp_path / "run"
    with full_stdout():
        assert run_train(monkeypatch, "fit", "--dataset", str(blobs), "--run-dir", str(run_dir), *SHORT) == 0
    assert (run_dir / "evaluation.json").is_file()
    assert capfd.readouterr().err == (
        "the screen cannot be written: No space left on device; the command goes on without it\n"
    )


@pytest.mark.parametrize("words", [[], ["--json"]])
def test_results_that_cannot_be_printed_are_an_error(
    fitted: tuple[Fitted, Dataset],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    words: list[str],
) -> None:
    """One line says why, and the exit code is 1."""
    with full_stdout():
        assert run_train(monkeypatch, "evaluate", str(fitted[0].run.path), *words) == 1
    assert capfd.readouterr().err == (
        "error: standard output cannot be written: No space left on device: the results are not complete\n"
    )


def test_a_closed_pipe_is_one_line(fitted: tuple[Fitted, Dataset]) -> None:
    """`convvae-train evaluate --json | head -1` ends without a traceback."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "convvae_trainer", "evaluate", str(fitted[0].run.path), "--json"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=120)
    os.close(writer)
    line = "error: standard output cannot be written: Broken pipe: the results are not complete\n"
    assert (done.returncode, done.stderr) == (1, line)


@pytest.mark.parametrize("flag", ["--dataset", "--run-dir", "--models", "--name", "--config"])
def test_a_name_that_is_not_utf8_is_refused(
    tmp_path: Path,
    blobs: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flag: str,
) -> None:
    """JSON, models and file names in reports are UTF-8: one line, exit code 2, and nothing is made."""
    flags = {"--dataset": str(blobs), "--run-dir": str(tmp_path / "run")}
    flags[flag] = os.fsdecode(bytes(tmp_path) + b"/a\xe9")
    before = sorted(tmp_path.iterdir())
    assert run_train(monkeypatch, "fit", *(word for pair in flags.items() for word in pair), *SHORT) == 2
    error = capsys.readouterr().err
    assert error == (
        f"error: the name {tmp_path}/a\\xe9 is not UTF-8: rename it, or give a link with another name\n"
    )
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_above_that_is_not_utf8_is_refused(
    tmp_path: Path, blobs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The settings hold absolute paths, so the folder in which the command was typed counts too."""
    folder = Path(os.fsdecode(bytes(tmp_path) + b"/a\xe9"))
    folder.mkdir()
    shutil.copy(blobs, folder / "blobs.npy")
    monkeypatch.chdir(folder)
    assert run_train(monkeypatch, "fit", "--dataset", "blobs.npy", "--run-dir", "run", *SHORT) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: the name {tmp_path}/a\\xe9/blobs.npy is not UTF-8: ")
    assert error.count("\n") == 1
    assert [path.name for path in folder.iterdir()] == ["blobs.npy"]


def test_odd_names_are_printed_safely(
    tmp_path: Path, blobs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Escape codes and line breaks of a name reach neither terminal nor log; the files stay valid JSON."""
    run_dir = tmp_path / "\x1b[31mred\nline"
    data = shutil.copy(blobs, tmp_path / "\x1b[2Jblobs\n.npy")
    assert run_train(monkeypatch, "fit", "--dataset", str(data), "--run-dir", str(run_dir), *SHORT) == 0
    shown = capsys.readouterr()
    assert "\x1b" not in shown.out + shown.err
    assert f"run           {tmp_path}/\\x1b[31mred\\nline\n" in shown.out
    assert json.loads((run_dir / "config.json").read_text())["dataset"] == str(data)
    assert run_train(monkeypatch, "evaluate", str(tmp_path / "\x1b]0;title\x07none")) == 2
    assert capsys.readouterr().err == (
        f"error: run folder {tmp_path}/\\x1b]0;title\\x07none does not exist\n"
    )
    assert printable("é") == "é"


def test_an_export_that_fails_names_the_command_that_repeats_it(
    tmp_path: Path, blobs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run of hours is not lost if the models' disk is full at its end."""

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("convvae_trainer.exports.publish.publish", full)
    run_dir, models = tmp_path / "run", tmp_path / "models"
    words = ["fit", "--dataset", str(blobs), "--run-dir", str(run_dir), *SHORT]
    assert run_train(monkeypatch, *words, "--models", str(models), "--name", "blobs") == 1
    assert capsys.readouterr().err == (
        f"error: {models / 'blobs'} cannot be written: No space left on device; the run is kept:"
        f" convvae-train export {run_dir} --models {models} --name blobs\n"
    )


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EPERM, errno.EBADF])
def test_a_disk_that_syncs_no_folders_takes_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Some network shares and FUSE file systems refuse fsync of a folder, and write files well."""
    refuse_folder_sync(monkeypatch, number)
    replace_file(tmp_path / "file", b"data")
    assert (tmp_path / "file").read_bytes() == b"data"
