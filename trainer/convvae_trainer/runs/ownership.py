"""The run folder of one command: made, locked, and removed again where nothing worth keeping is in it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from convvae_service.bundle import TRAINED_ON_FILE
from convvae_trainer.runs.folder import RunFolder, check_new
from convvae_trainer.runs.lock import RunLock, check_unlocked, locked

__all__ = ["has_checkpoint", "made_folder", "new_folder", "resumed_folder"]

_CHECKPOINT = "checkpoint.safetensors"
_FILES = ("config.json", "run.json", "reproduce.txt", "metrics.jsonl", TRAINED_ON_FILE, "evaluation.json")


@contextmanager
def resumed_folder(path: Path) -> Iterator[RunLock]:
    """Hold the lock of the folder of an existing run in the block.

    Raises:
        BadRun: There is no run, or another process trains it.
    """
    RunFolder.open(path)
    with locked(path) as lock:
        yield lock


@contextmanager
def new_folder(path: Path) -> Iterator[RunLock]:
    """Make a run folder, and hold its lock in the block.

    If the block fails before there is a checkpoint, all that was made is removed.

    Raises:
        BadRun: The folder is not empty, cannot be written, or another process trains in it.
    """
    check_unlocked(path)
    check_new(path)
    with made_folder(path), locked(path) as lock:
        check_new(path)
        try:
            yield lock
        except (Exception, KeyboardInterrupt, SystemExit):
            if not has_checkpoint(path) and lock.is_in_place:
                _remove_files(path)
            raise


@contextmanager
def made_folder(path: Path) -> Iterator[None]:
    """Make a folder and those above it. After the block, those that are new and still empty are removed."""
    absent = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        with suppress(OSError):
            for folder in absent:
                folder.rmdir()


def has_checkpoint(path: Path) -> bool:
    """Return whether the run folder holds a checkpoint to resume from."""
    return (path / _CHECKPOINT).is_file()


def _remove_files(path: Path) -> None:
    for name in _FILES:
        with suppress(OSError):
            (path / name).unlink(missing_ok=True)
    for leftover in path.glob(".*.tmp"):
        with suppress(OSError):
            leftover.unlink(missing_ok=True)
    shutil.rmtree(path / "tensorboard", ignore_errors=True)
