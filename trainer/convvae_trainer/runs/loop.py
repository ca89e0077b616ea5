"""The training loop. Images stay on the device as uint8; a signal ends the loop between two steps."""

import math
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from convvae_trainer.compute.device import synchronise
from convvae_trainer.errors import Interrupted, TrainingFailed
from convvae_trainer.evaluation.validation import validation_terms
from convvae_trainer.runs.checkpoint_saver import CheckpointSaver
from convvae_trainer.runs.context import RunContext
from convvae_trainer.runs.folder import RunFolder
from convvae_trainer.runs.live_display import LiveDisplay
from convvae_trainer.runs.lock import RunLock
from convvae_trainer.runs.metrics_log import MetricsLog
from convvae_trainer.runs.progress import TrainProgress, batch_size, fraction_done
from convvae_trainer.runs.schedules import effective_beta, epoch_order, is_early_log_step, learning_rate
from convvae_trainer.runs.stopwatch import Stopwatch
from convvae_trainer.runs.tensorboard import TensorBoardWriter
from convvae_trainer.step.train_state import TrainState

__all__ = ["TrainingLoop"]

# Steps between two checks of skipped steps and of the checkpoint's age: each waits for the device.
CHECK_EVERY_STEPS = 50
MAX_SKIPPED_IN_A_ROW = 100
# Begins the names of the figures on validation images.
VALIDATION = "validation_"


@dataclass(kw_only=True, slots=True)
class TrainingLoop:
    """The epochs and steps of one run in one process.

    `signals` grows when a signal arrives. Everything else that changes is in `progress` and `train_state`.
    """

    context: RunContext
    run: RunFolder
    train_state: TrainState
    progress: TrainProgress
    display: LiveDisplay
    signals: Sequence[signal.Signals]
    board: TensorBoardWriter | None
    checkpoint_every_s: float
    lock: RunLock | None = None
    images: torch.Tensor = field(init=False)
    _metrics: MetricsLog = field(init=False)
    _checkpoints: CheckpointSaver = field(init=False)
    _batch_size: int = field(init=False)
    _steps_per_epoch: int = field(init=False)
    _saved_at_s: float = field(init=False)
    _fraction: float = field(init=False)
    _stop_signal: int = field(init=False)

    def __post_init__(self) -> None:
        # On a CPU the tensor shares the array's memory; channels first would double it.
        self.images = torch.from_numpy(self.context.dataset.train).to(self.context.device)
        self._batch_size = batch_size(self.context.config, len(self.images))
        # All batches have one size. The images left over at the end of an epoch may come early in the next.
        self._steps_per_epoch = len(self.images) // self._batch_size
        self._saved_at_s = time.monotonic()
        console, lock = self.context.console, self.lock
        self._metrics = MetricsLog(self.run.metrics, console=console, lock=lock)
        self._checkpoints = CheckpointSaver(self.run, step=self.progress.step, console=console, lock=lock)
        self._sync_processes()

    @property
    def is_done(self) -> bool:
        """Whether the run has had its epochs or minutes, or has stopped early."""
        return self._fraction >= 1

    @property
    def _is_epoch_done(self) -> bool:
        return self.progress.step_in_epoch == self._steps_per_epoch

    @property
    def _epochs(self) -> float:
        """Epochs so far, with the fraction of the current one."""
        return self.progress.epoch + self.progress.step_in_epoch / self._steps_per_epoch

    def run_to_end(self) -> None:
        """Train to the end of the run.

        Raises:
            Interrupted: A signal asked to stop; a checkpoint was saved first.
            BadRun: That checkpoint cannot be written.
            TrainingFailed: Too many steps in a row were not finite.
        """
        while not self.is_done:
            self._train_epoch()
            # After the last step the run is finished, whatever the signal.
            if self._stop_signal and not self.is_done:
                self.train_state.step_metrics.share(self.context.dist)
                self.save(is_last=True)
                raise Interrupted(self._stop_signal, step=self.progress.step)

    def _train_epoch(self) -> None:
        """Train to the end of the epoch, or until the run is done or a signal asks to stop."""
        progress = self.progress
        order = epoch_order(self.context.config, progress.epoch, len(self.images))
        order = order.to(self.context.device)
        step_before, elapsed_before_s, stopwatch = progress.step, progress.elapsed_s, Stopwatch()
        while not self._is_epoch_done and not self.is_done and not self._stop_signal:
            self._train_step(order)
            progress.elapsed_s = elapsed_before_s + stopwatch.elapsed_s
            self._sync_processes()
            if is_early_log_step(progress.step):
                self._log(self._summary("step"))
            if progress.step % CHECK_EVERY_STEPS == 0:
                self._check_finite()
                with stopwatch.paused():
                    self._save_within_epoch()
            if self.display.is_due:
                self._show(steps_per_s=(progress.step - step_before) / stopwatch.elapsed_s)
        synchronise(self.context.device)
        progress.elapsed_s = elapsed_before_s + stopwatch.elapsed_s
        if self._is_epoch_done or self.is_done:
            self._end_epoch()

    def _train_step(self, order: torch.Tensor) -> None:
        progress, config = self.progress, self.context.config
        first = progress.step_in_epoch * self._batch_size
        rows = self.context.dist.rows(order[first : first + self._batch_size])
        self.train_state.step(
            self.images[rows].permute(0, 3, 1, 2).contiguous(),
            learning_rate=learning_rate(config, progress.step, self._fraction),
            beta=effective_beta(config, self._epochs),
            fraction=self._fraction,
        )
        progress.step += 1
        progress.step_in_epoch += 1

    def _sync_processes(self) -> None:
        """Agree with the other processes on how much of the run is done, and on whether to stop."""
        fraction = fraction_done(self.context.config, self.progress, len(self.images))
        signal_here = self.signals[0] if self.signals else 0
        self._fraction, self._stop_signal = self.context.dist.sync_progress(fraction, signal_here)

    def _end_epoch(self) -> None:
        progress = self.progress
        summary = self._summary("epoch")
        progress.skipped += summary["skipped_steps"]
        if self._is_epoch_done:
            progress.epoch += 1
            progress.step_in_epoch = 0
        if self.context.dataset.validation is not None and self._has_encoder:
            summary |= self._validate(self.context.dataset.validation)
        self._log(summary)
        self.train_state.step_metrics.clear()
        self._check_finite()
        if self._is_save_due():
            self.save()

    @property
    def _has_encoder(self) -> bool:
        """Whether the encoder has been trained: not in the first phase of a GAN."""
        objective = self.train_state.objective
        return self._fraction > objective.encoder_start(self.context.config)

    def _validate(self, images_NHWC: NDArray[np.uint8]) -> dict[str, float]:
        """Return the terms of the bound on the validation images, as figures of a line of metrics."""
        config, dist = self.context.config, self.context.dist
        terms: dict[str, float] = {}
        if dist.is_first:
            terms = validation_terms(self.train_state, images_NHWC, binarize=config.binarize)
        terms = dist.broadcast(terms)
        if config.early_stop_epochs is not None:
            elbo = terms["elbo"] if "elbo" in terms else -terms["distortion"]
            self._keep_best(elbo, patience=config.early_stop_epochs)
        return {f"{VALIDATION}{name}": value for name, value in terms.items()}

    def _keep_best(self, elbo: float, *, patience: int) -> None:
        """Keep the weights if they are the best so far, or decide to stop early."""
        progress = self.progress
        if math.isfinite(elbo) and (progress.best_elbo is None or elbo > progress.best_elbo):
            progress.best_elbo, progress.best_epoch = elbo, progress.epoch
            self.train_state.ema.keep_best()
        elif progress.epoch - max(progress.best_epoch, progress.patience_epoch) >= patience:
            progress.is_stopped = True
        self._sync_processes()

    def _check_finite(self) -> None:
        """Raise `TrainingFailed` if all recent steps were skipped: training has stopped to make progress."""
        skipped = self.train_state.step_metrics.skipped_in_a_row()
        if skipped < min(MAX_SKIPPED_IN_A_ROW, self._steps_per_epoch):
            return
        advice = f"a lower learning_rate (now {self.context.config.learning_rate:g})"
        if self.run.record.precision != "fp32":
            advice += " or --precision fp32"
        raise TrainingFailed(
            f"the last {skipped} steps, up to step {self.progress.step}, had no finite loss or gradient:"
            f" start a new run with {advice}"
        )

    def _summary(self, kind: str) -> dict[str, Any]:
        """Return the epoch's means so far, over all processes, as a line of metrics."""
        config, metrics = self.context.config, self.train_state.step_metrics
        metrics.share(self.context.dist)
        return {
            "kind": kind,
            "step": self.progress.step,
            "epoch": round(self._epochs, 6),
            **metrics.means(),
            "learning_rate": learning_rate(config, self.progress.step, self._fraction),
            "beta": effective_beta(config, self._epochs),
            "sigma": self.train_state.likelihood.constants().sigma,
            "elapsed_s": round(self.progress.elapsed_s, 3),
        }

    def _log(self, values: dict[str, Any]) -> None:
        """Write a line of metrics in the first process; figures that are not finite are null in JSON."""
        if self.context.dist.is_first:
            bad = [name for name, value in values.items() if _is_bad(value)]
            values |= dict.fromkeys(bad)
            self._metrics.append(values)
            if self.board is not None:
                self.board.log(values)

    def _show(self, *, steps_per_s: float) -> None:
        fraction = max(self._fraction, 1e-9)
        self.display.show_epoch(
            epoch=self.progress.epoch + 1,
            fraction=fraction,
            means=self.train_state.step_metrics.means(),
            images_per_s=steps_per_s * self._batch_size,
            left_s=self.progress.elapsed_s * (1 - fraction) / fraction,
        )

    def _save_within_epoch(self) -> None:
        """Save a checkpoint if one is due, unless the end of the epoch or of the run follows at once."""
        # The first process's clock decides, since every process has to share its part of the metrics.
        if not self._is_epoch_done and not self.is_done and self.context.dist.broadcast(self._is_save_due()):
            self.train_state.step_metrics.share(self.context.dist)
            self.save()

    def _is_save_due(self) -> bool:
        """Return whether the last checkpoint is old enough, and the last step was finite.

        After a weight has become infinite or NaN all steps are skipped; the checkpoint from before is kept.
        """
        is_finite = not self.train_state.step_metrics.skipped_in_a_row()
        return is_finite and time.monotonic() - self._saved_at_s >= self.checkpoint_every_s

    def save(self, *, is_last: bool = False) -> None:
        """Save a checkpoint in the first process. Within an epoch, share the metrics first.

        Args:
            is_last: Whether the process ends after this checkpoint. Only then it must succeed.

        Raises:
            BadRun: The last checkpoint cannot be written.
        """
        if self.context.dist.is_first:
            self._checkpoints.save(self.train_state.tensors(), self.progress, is_last=is_last)
        self._saved_at_s = time.monotonic()


def _is_bad(value: object) -> bool:
    return type(value) is float and not math.isfinite(value)
