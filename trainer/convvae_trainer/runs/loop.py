"""The training loop: data stay on the device as uint8 and are indexed there; a signal ends it whole."""

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from types import FrameType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from convvae_trainer.compute.device import synchronise
from convvae_trainer.errors import Interrupted, TrainerError
from convvae_trainer.evaluation.bound import fit_sigma, mean_bound
from convvae_trainer.runs.checkpoint import write_checkpoint
from convvae_trainer.runs.folder import RunFolder
from convvae_trainer.runs.live_display import LiveDisplay
from convvae_trainer.runs.progress import TrainProgress, batch_size, fraction_done, is_finished
from convvae_trainer.runs.tensorboard import TensorBoardWriter
from convvae_trainer.settings.config import Config
from convvae_trainer.step.train_state import TrainState

__all__ = ["CHECKPOINT_EVERY_S", "TrainProgress", "finish", "train"]

CHECKPOINT_EVERY_S = 20.0
LAST_EARLY_STEP = 4096
FINAL_RATE = 0.02
WARMUP_FRACTION = 0.1
# So often the host waits for the device to see whether steps are finite.
LOOK_EVERY_STEPS = 50
MAX_SKIPPED_IN_A_ROW = 100


def train(
    run: RunFolder,
    train_state: TrainState,
    images_NHWC: NDArray[np.uint8],
    progress: TrainProgress,
    *,
    console: Console,
    validation_NHWC: NDArray[np.uint8] | None = None,
    board: TensorBoardWriter | None = None,
    checkpoint_every_s: float = CHECKPOINT_EVERY_S,
) -> TrainProgress:
    """Train from `progress` to the end of the run, and leave a checkpoint of the end.

    Args:
        run: Settings, and where everything is kept.
        train_state: What is trained.
        images_NHWC: uint8 images.
        progress: Where to begin; it is moved.
        console: Where progress is shown.
        validation_NHWC: Images whose ELBO decides when to stop, where the run's settings say so.
        board: TensorBoard's files, in the first process, where the run writes them.
        checkpoint_every_s: Seconds between two checkpoints, at the least.

    Raises:
        Interrupted: A signal asked to stop; a checkpoint was saved first.
        TrainerError: Too many steps in a row were not finite.
    """
    loop = TrainingLoop(run, train_state, images_NHWC, progress, validation_NHWC, board, checkpoint_every_s)
    is_new = not loop.is_done
    if not is_finished(run.config, progress, len(images_NHWC)):
        progress.is_finished = False
    if board is not None and not progress.step:
        board.show(step=0, elapsed_s=0.0)
    with (
        _signals() as stopped,
        LiveDisplay(console, total_epochs=run.config.total_epochs) as display,
    ):
        loop.stopped = stopped
        while not loop.is_done:
            loop.train_epoch(display)
            # A signal in the last step finds a run that is finished.
            if loop.stop_signal and not loop.is_done:
                train_state.step_metrics.share(train_state.dist)
                loop.save()
                raise Interrupted(loop.stop_signal, step=loop.progress.step)
    if not progress.is_finished:
        finish(train_state, images_NHWC)
        # Before the save: no checkpoint says that it is the end and lacks some of it.
        progress.is_finished = True
        loop.save()
    if board is not None and is_new:
        board.show(step=progress.step, elapsed_s=progress.elapsed_s)
    if progress.skipped:
        text = f"{progress.skipped} of {progress.step} steps had no finite loss or gradient and were skipped"
        console.print(text, highlight=False, soft_wrap=True)
    if progress.best_elbo is not None:
        console.print(_kept_in_words(progress), highlight=False, soft_wrap=True)
    return progress


def finish(train_state: TrainState, images_NHWC: NDArray[np.uint8]) -> None:
    """Do what follows the last step: take the best weights, and fit the sigma that no gradient has fitted.

    Args:
        train_state: What was trained.
        images_NHWC: The uint8 images that it was trained on.
    """
    train_state.ema.restore_best()
    if train_state.objective.fits_sigma:
        fit_sigma(train_state, images_NHWC)


def _kept_in_words(progress: TrainProgress) -> str:
    """Return which epoch's weights early stopping kept, and whether it stopped the run."""
    end = f"stopped early after epoch {progress.epoch}" if progress.is_stopped else "not stopped early"
    return (
        f"{end}: the weights after epoch {progress.best_epoch} are kept, the best on the validation images"
        f" ({progress.best_elbo:.2f} nats)"
    )


class TrainingLoop:
    def __init__(
        self,
        run: RunFolder,
        train_state: TrainState,
        images_NHWC: NDArray[np.uint8],
        progress: TrainProgress,
        validation_NHWC: NDArray[np.uint8] | None,
        board: TensorBoardWriter | None,
        checkpoint_every_s: float,
    ) -> None:
        self.run = run
        self.config = run.config
        self.train_state = train_state
        self.dist = train_state.dist
        self.progress = progress
        self.validation_NHWC = validation_NHWC
        self.board = board
        # As they are: on a CPU this shares their memory, where channels first would double it.
        self.images_NHWC = torch.from_numpy(images_NHWC).to(train_state.device)
        self.batch_size = batch_size(self.config, len(images_NHWC))
        # Batches have one fixed size; what is left over has its chance in the next epoch's order.
        self.steps_per_epoch = len(images_NHWC) // self.batch_size
        self.checkpoint_every_s = checkpoint_every_s
        self.saved_at = time.monotonic()
        self.stopped: list[signal.Signals] = []
        self.stop_signal = 0
        self.fraction = 0.0
        self._agree()

    def _agree(self) -> None:
        """Settle with the other processes how much of the run is done, 0 to 1, and whether to stop."""
        fraction = fraction_done(self.config, self.progress, len(self.images_NHWC))
        self.fraction, self.stop_signal = self.dist.sync_progress(
            fraction, self.stopped[0] if self.stopped else 0
        )

    @property
    def is_done(self) -> bool:
        return self.fraction >= 1

    def train_epoch(self, display: LiveDisplay) -> None:
        """Train to the end of the present epoch, of the run's time, or until a signal."""
        progress, train_state = self.progress, self.train_state
        order = epoch_order(self.config, progress.epoch, len(self.images_NHWC)).to(train_state.device)
        start, elapsed_before = time.perf_counter(), progress.elapsed_s
        first = progress.step
        while progress.step_in_epoch < self.steps_per_epoch and not self.is_done and not self.stop_signal:
            low = progress.step_in_epoch * self.batch_size
            rows = self.dist.rows(order[low : low + self.batch_size])
            epochs = progress.epoch + progress.step_in_epoch / self.steps_per_epoch
            train_state.step(
                self.images_NHWC[rows].permute(0, 3, 1, 2).contiguous(),
                learning_rate=learning_rate(self.config, progress.step, self.fraction),
                beta=effective_beta(self.config, epochs),
                fraction=self.fraction,
            )
            progress.step += 1
            progress.step_in_epoch += 1
            progress.elapsed_s = elapsed_before + time.perf_counter() - start
            self._agree()
            if progress.step & (progress.step - 1) == 0 and progress.step <= LAST_EARLY_STEP:
                self._log(self._summary("step"))
            if progress.step % LOOK_EVERY_STEPS == 0:
                self._check_finite()
                # Not training time, as it is none at the end of an epoch.
                start += self._save_within_epoch()
            if display.is_due:
                self._show(display, (progress.step - first) / (time.perf_counter() - start))
        synchronise(train_state.device)
        progress.elapsed_s = elapsed_before + time.perf_counter() - start
        if self.stop_signal and progress.step_in_epoch < self.steps_per_epoch and not self.is_done:
            return
        self._end_epoch()

    def _save_within_epoch(self) -> float:
        """Write the checkpoint if it is due, and return the seconds that it took.

        After an epoch's or the run's last step the epoch's line is yet to be written: its end saves.
        """
        began = time.perf_counter()
        is_last = self.progress.step_in_epoch == self.steps_per_epoch or self.is_done
        # One clock decides for all processes, since each has its part of the sums.
        if not is_last and self.dist.broadcast(self._is_due()):
            self.train_state.step_metrics.share(self.dist)
            self.save()
        return time.perf_counter() - began

    def _is_due(self) -> bool:
        """Whether a checkpoint is to be written: the last one is old, and the weights are finite."""
        # A weight that is not finite makes each step one to skip: the checkpoint from before it is kept.
        is_sound = not self.train_state.step_metrics.skipped_in_a_row()
        return is_sound and time.monotonic() - self.saved_at >= self.checkpoint_every_s

    def _end_epoch(self) -> None:
        progress = self.progress
        summary = self._summary("epoch")
        progress.skipped += summary["skipped_steps"]
        progress.epoch += progress.step_in_epoch == self.steps_per_epoch
        progress.step_in_epoch %= self.steps_per_epoch
        if self.validation_NHWC is not None:
            summary |= self._validate()
        self._log(summary)
        self.train_state.step_metrics.clear()
        self._check_finite()
        if self._is_due():
            self.save()

    def _validate(self) -> dict[str, float]:
        """Evaluate the validation images, keep the best weights, and stop where none were better for long."""
        progress = self.progress
        assert self.validation_NHWC is not None
        elbo = 0.0
        if self.dist.is_first:
            elbo = mean_bound(self.train_state, self.validation_NHWC, binarize=self.config.binarize)
        elbo = self.dist.broadcast(elbo)
        if math.isfinite(elbo) and (progress.best_elbo is None or elbo > progress.best_elbo):
            progress.best_elbo, progress.best_epoch = elbo, progress.epoch
            self.train_state.ema.keep_best()
        elif progress.epoch - progress.best_epoch >= (self.config.early_stop_epochs or 0):
            progress.is_stopped = True
        self._agree()
        has_rate = self.train_state.objective.has_rate
        return {"validation_elbo": elbo} if has_rate else {"validation_distortion": -elbo}

    def _check_finite(self) -> None:
        in_a_row = self.train_state.step_metrics.skipped_in_a_row()
        if in_a_row >= min(MAX_SKIPPED_IN_A_ROW, self.steps_per_epoch):
            advice = f"a lower learning_rate (now {self.config.learning_rate:g})"
            if self.run.record["precision"] != "fp32":
                advice += " or --precision fp32"
            raise TrainerError(
                f"the last {in_a_row} steps, up to step {self.progress.step}, had no finite loss or gradient:"
                f" start a new run with {advice}; the last checkpoint is kept"
            )

    def _log(self, values: dict[str, Any]) -> None:
        if self.dist.is_first:
            # A weight that is not finite makes such figures; JSON has no word for them.
            bad = [n for n, value in values.items() if type(value) is float and not math.isfinite(value)]
            values |= dict.fromkeys(bad)
            self.run.log(values)
            if self.board is not None:
                self.board.log(values)

    def _summary(self, kind: str) -> dict[str, Any]:
        """Return the epoch's means so far, over all processes, as one line of metrics."""
        self.train_state.step_metrics.share(self.dist)
        epochs = self.progress.epoch + self.progress.step_in_epoch / self.steps_per_epoch
        return {
            "kind": kind,
            "step": self.progress.step,
            "epoch": round(epochs, 6),
            **self.train_state.step_metrics.means(),
            "learning_rate": learning_rate(self.config, self.progress.step, self.fraction),
            "beta": effective_beta(self.config, epochs),
            "sigma": self.train_state.likelihood.constants().sigma,
            "elapsed_s": round(self.progress.elapsed_s, 3),
        }

    def _show(self, display: LiveDisplay, steps_per_s: float) -> None:
        fraction = max(self.fraction, 1e-9)
        display.show(
            epoch=self.progress.epoch + 1,
            fraction=fraction,
            means=self.train_state.step_metrics.means(),
            images_per_s=steps_per_s * self.batch_size,
            left_s=self.progress.elapsed_s * (1 - fraction) / fraction,
        )

    def save(self) -> None:
        """Write the checkpoint, one process for all."""
        if self.dist.is_first:
            state = {"progress": asdict(self.progress)}
            write_checkpoint(self.run.checkpoint, self.train_state.tensors(), state)
        self.saved_at = time.monotonic()


def learning_rate(config: Config, step: int, fraction: float) -> float:
    """Return the rate at a step: linear warm-up, at most a tenth of the run, then cosine to 2 %."""
    warmup = max((step + 1) / max(1, config.warmup_steps), fraction / WARMUP_FRACTION)
    cosine = FINAL_RATE + (1 - FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * min(1.0, fraction)))
    return config.learning_rate * min(1.0, warmup) * cosine


def effective_beta(config: Config, epochs: float) -> float:
    """Return the weight of the rate after so many epochs."""
    if not config.kl_warmup_epochs:
        return config.beta
    return config.beta * min(1.0, epochs / config.kl_warmup_epochs)


def epoch_order(config: Config, epoch: int, count: int) -> torch.Tensor:
    """Return the order of the images in an epoch: of the seed and the epoch's number alone."""
    seed = int(np.random.SeedSequence((config.seed, epoch)).generate_state(1, np.uint64)[0] >> 1)
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


@contextmanager
def _signals() -> Iterator[list[signal.Signals]]:
    """Collect SIGINT and SIGTERM in the list that is yielded; a second one acts as it always does."""
    seen: list[signal.Signals] = []
    before: dict[signal.Signals, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature is given
        seen.append(signal.Signals(number))
        signal.signal(number, before[signal.Signals(number)])

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.getsignal(number)
        signal.signal(number, note)
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
