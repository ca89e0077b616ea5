"""The checkpoints of a run in training. Only the last one must succeed."""

from collections.abc import Mapping
from dataclasses import asdict

import torch
from rich.console import Console

from convvae_trainer.console import say
from convvae_trainer.errors import BadRun
from convvae_trainer.runs.checkpoint import write_checkpoint
from convvae_trainer.runs.folder import RunFolder
from convvae_trainer.runs.lock import RunLock
from convvae_trainer.runs.progress import TrainProgress

__all__ = ["CheckpointSaver"]


class CheckpointSaver:
    """Writes the checkpoints of a run.

    Args:
        run: The run.
        step: The step of the checkpoint that the run folder holds, if it holds one.
        console: Shows once that checkpoints cannot be written, and once that they can be again.
        lock: The lock of the run folder; None: the folder is not locked.
    """

    def __init__(self, run: RunFolder, *, step: int, console: Console, lock: RunLock | None) -> None:
        self._run = run
        self._console = console
        self._lock = lock
        self._saved_step = step if run.checkpoint.exists() else None
        self._is_failing = False

    def save(self, tensors: Mapping[str, torch.Tensor], progress: TrainProgress, *, is_last: bool) -> None:
        """Write a checkpoint. If that fails, the one before is kept.

        Args:
            tensors: The state of the networks and optimisers.
            progress: The progress of the run.
            is_last: Whether the process ends after this checkpoint.

        Raises:
            BadRun: The last checkpoint cannot be written.
        """
        try:
            if self._lock is not None:
                self._lock.check_in_place()
            write_checkpoint(self._run.checkpoint, tensors, {"progress": asdict(progress)})
        except OSError as error:
            text = self._failure(progress.step, error)
            if is_last:
                raise BadRun(text) from None
            if not self._is_failing:
                say(self._console, f"{text}; training goes on")
            self._is_failing = True
            return
        self._saved_step = progress.step
        if self._is_failing:
            say(self._console, f"the checkpoint of step {progress.step} is written")
        self._is_failing = False

    def _failure(self, step: int, error: OSError) -> str:
        kept = "no checkpoint is saved"
        if self._saved_step is not None:
            kept = f"the last checkpoint is kept, that of step {self._saved_step}"
        reason = error.strerror or str(error)
        return f"the checkpoint of step {step} in {self._run.path} cannot be written: {reason}; {kept}"
