"""A run folder belongs to one process at a time; a dead one holds nothing."""

import errno
import fcntl
import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from convvae_trainer.commands.evaluate import run_evaluate
from convvae_trainer.commands.export import run_export
from convvae_trainer.data.dataset import Dataset
from convvae_trainer.errors import BadRun
from convvae_trainer.evaluation.options import EvalOptions
from convvae_trainer.runs.fit import Fitted, fit
from convvae_trainer.runs.lock import LOCK_FILE, locked
from convvae_trainer.settings.config import Config

HOLD = """
import sys, time
from pathlib import Path
from convvae_trainer.runs.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def held_elsewhere(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Have another process hold the lock of a folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def no_flock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the file system one without flock."""

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)


def change_holder(folder: Path, **values: Any) -> None:
    """Change what a lock file says about its holder."""
    path = folder / LOCK_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.fixture
def run_dir(fitted: tuple[Fitted, Dataset], tmp_path: Path) -> Path:
    """A copy of a run that has ended."""
    return shutil.copytree(fitted[0].run.path, tmp_path / "run")


@pytest.mark.parametrize("has_flock", [True, False])
def test_the_second_process_is_refused_by_the_name_of_the_first(
    run_dir: Path, dataset: Dataset, config: Config, monkeypatch: pytest.MonkeyPatch, has_flock: bool
) -> None:
    """Host, pid and the next step are in one line, for a resumed run and for a new one; no file changes."""
    if not has_flock:
        no_flock(monkeypatch)
    new = run_dir.with_name("new")
    new.mkdir()
    for folder, resume in ((run_dir, True), (new, False)):
        with held_elsewhere(folder) as first:
            before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
            with pytest.raises(BadRun) as raised:
                fit(config, dataset, folder, resume=resume)
            text = str(raised.value)
            assert text.startswith(
                f"folder {folder} is in use by process {first.pid} on {socket.gethostname()}"
            )
            assert text.endswith(f"or stop it with kill {first.pid}")
            assert "\n" not in text
            assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


@pytest.mark.parametrize("has_flock", [True, False])
def test_a_killed_process_holds_nothing(
    run_dir: Path, dataset: Dataset, config: Config, monkeypatch: pytest.MonkeyPatch, has_flock: bool
) -> None:
    """After kill -9 the run is resumed, and no lock file stays."""
    if not has_flock:
        no_flock(monkeypatch)
    with held_elsewhere(run_dir) as first:
        first.send_signal(signal.SIGKILL)
        first.wait()
        assert (run_dir / LOCK_FILE).exists()
        fit(config, dataset, run_dir, resume=True)
    assert not (run_dir / LOCK_FILE).exists()


def test_without_flock_the_named_process_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later process with the same pid, after a reboot too, is another one; another host cannot be asked."""
    no_flock(monkeypatch)
    with locked(tmp_path):
        change_holder(tmp_path, process_start="an-earlier-boot 17")
        with locked(tmp_path):
            pass
    with locked(tmp_path):
        change_holder(tmp_path, host="elsewhere")
        with pytest.raises(BadRun, match=r"on elsewhere, since .*: if it has ended, remove .*\.lock$"):
            locked(tmp_path).__enter__()


@pytest.mark.parametrize("has_flock", [True, False])
def test_a_copied_lock_locks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_flock: bool
) -> None:
    """A folder that was copied while a process trained in it is free; a moved one is not."""
    if not has_flock:
        no_flock(monkeypatch)
    (tmp_path / "run").mkdir()
    with held_elsewhere(tmp_path / "run"):
        shutil.copytree(tmp_path / "run", tmp_path / "copy")
        with locked(tmp_path / "copy"):
            pass
        (tmp_path / "run").rename(tmp_path / "moved")
        with pytest.raises(BadRun, match="is in use by process"):
            locked(tmp_path / "moved").__enter__()


def test_an_empty_or_damaged_lock_file_locks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a live process holds a lock."""
    for text in ("", "[]", "{", '{"host": 1}'):
        (tmp_path / LOCK_FILE).write_text(text)
        with monkeypatch.context() as patch:
            no_flock(patch)
            with locked(tmp_path):
                pass


def test_readers_are_not_refused(run_dir: Path, tmp_path: Path) -> None:
    """A run in use can be evaluated and exported; figures that would be kept wait, and then say why not."""
    with held_elsewhere(run_dir):
        run_evaluate(run_dir, device="cpu")
        assert run_export(run_dir, models=tmp_path / "models", name="blobs").folder.name == "1"


def test_figures_that_cannot_be_kept_are_said(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The evaluation is not lost: it is printed, and a line names the process that writes in the folder."""
    monkeypatch.setattr("convvae_trainer.commands.kept_figures.LOCK_WAIT_S", 0.1)
    before = (run_dir / "evaluation.json").read_bytes()
    with held_elsewhere(run_dir) as first:
        options = EvalOptions(importance_samples=2, limit_images=2)
        found = run_evaluate(run_dir, device="cpu", options=options, console=Console(width=400))
    assert found.optional.log_likelihood is not None
    assert f"not kept in the run folder: folder {run_dir} is in use by process {first.pid}" in (
        capsys.readouterr().out
    )
    assert (run_dir / "evaluation.json").read_bytes() == before


def test_a_replaced_folder_is_not_written(
    config: Config, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run whose folder was removed and made again by another run does not write its weights there."""
    run_dir = tmp_path / "run"

    def replace(*_: Any) -> None:
        run_dir.rename(tmp_path / "old")
        run_dir.mkdir()
        (run_dir / "other").touch()

    monkeypatch.setattr("convvae_trainer.runs.training.finish", replace)
    with pytest.raises(BadRun, match=r"the folder was removed, or another process uses it"):
        fit(config, dataset, run_dir)
    assert [path.name for path in run_dir.iterdir()] == ["other"]
    assert list((tmp_path / "old").iterdir())
