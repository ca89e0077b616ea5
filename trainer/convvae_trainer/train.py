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

from convvae_trainer.board import Board
from convvae_trainer.checkpoint import write_checkpoint
from convvae_trainer.config import Config
from convvae_trainer.device import synchronise
from convvae_trainer.errors import Interrupted, TrainerError
from convvae_trainer.evaluate import fit_sigma, mean_bound
from convvae_trainer.learner import Learner
from convvae_trainer.position import Position, batch_size, fraction_done, is_finished
from convvae_trainer.progress import TrainingProgress
from convvae_trainer.run_folder import RunFolder

__all__ = ["Position", "finish", "train"]

CHECKPOINT_EVERY_S = 20.0
LAST_EARLY_STEP = 4096
FINAL_RATE = 0.02
WARMUP_FRACTION = 0.1
# So often the host waits for the device to see whether steps are finite.
LOOK_EVERY_STEPS = 50
MAX_SKIPPED_IN_A_ROW = 100


def train(
    run: RunFolder,
    learner: Learner,
    images_NHWC: NDArray[np.uint8],
    position: Position,
    *,
    console: Console,
    validation_NHWC: NDArray[np.uint8] | None = None,
    board: Board | None = None,
    checkpoint_every_s: float = CHECKPOINT_EVERY_S,
) -> Position:
    """Train from `position` to the end of the run, and leave a checkpoint of the end.

    Args:
        run: Settings, and where everything is kept.
        learner: What is trained.
        images_NHWC: uint8 images.
        position: Where to begin; it is moved.
        console: Where progress is shown.
        validation_NHWC: Images whose ELBO decides when to stop, where the run's settings say so.
        board: TensorBoard's files, in the first process, where the run writes them.
        checkpoint_every_s: Seconds between two checkpoints, at the least.

    Raises:
        Interrupted: A signal asked to stop; a checkpoint was saved first.
        TrainerError: Too many steps in a row were not finite.
    """
    loop = _Loop(run, learner, images_NHWC, position, validation_NHWC, board, checkpoint_every_s)
    is_new = not loop.is_done
    if not is_finished(run.config, position, len(images_NHWC)):
        position.is_finished = False
    if board is not None and not position.step:
        board.show(step=0, elapsed_s=0.0)
    with (
        _signals() as stopped,
        TrainingProgress(console, total_epochs=run.config.total_epochs) as progress,
    ):
        loop.stopped = stopped
        while not loop.is_done:
            loop.train_epoch(progress)
            # A signal in the last step finds a run that is finished.
            if loop.stop_signal and not loop.is_done:
                learner.totals.share(learner.world)
                loop.save()
                raise Interrupted(loop.stop_signal, step=loop.position.step)
    if not position.is_finished:
        finish(learner, images_NHWC)
        # Before the save: no checkpoint says that it is the end and lacks some of it.
        position.is_finished = True
        loop.save()
    if board is not None and is_new:
        board.show(step=position.step, elapsed_s=position.elapsed_s)
    if position.skipped:
        text = f"{position.skipped} of {position.step} steps had no finite loss or gradient and were skipped"
        console.print(text, highlight=False, soft_wrap=True)
    if position.best_elbo is not None:
        console.print(_kept_in_words(position), highlight=False, soft_wrap=True)
    return position


def finish(learner: Learner, images_NHWC: NDArray[np.uint8]) -> None:
    """Do what follows the last step: take the best weights, and fit the sigma that no gradient has fitted.

    Args:
        learner: What was trained.
        images_NHWC: The uint8 images that it was trained on.
    """
    learner.average.take_best()
    if learner.config.is_adversarial:
        fit_sigma(learner, images_NHWC)


def _kept_in_words(position: Position) -> str:
    """Return which epoch's weights early stopping kept, and whether it stopped the run."""
    end = f"stopped early after epoch {position.epoch}" if position.is_stopped else "not stopped early"
    return (
        f"{end}: the weights after epoch {position.best_epoch} are kept, the best on the validation images"
        f" ({position.best_elbo:.2f} nats)"
    )


class _Loop:
    def __init__(
        self,
        run: RunFolder,
        learner: Learner,
        images_NHWC: NDArray[np.uint8],
        position: Position,
        validation_NHWC: NDArray[np.uint8] | None,
        board: Board | None,
        checkpoint_every_s: float,
    ) -> None:
        self.run = run
        self.config = run.config
        self.learner = learner
        self.world = learner.world
        self.position = position
        self.validation_NHWC = validation_NHWC
        self.board = board
        # As they are: on a CPU this shares their memory, where channels first would double it.
        self.images_NHWC = torch.from_numpy(images_NHWC).to(learner.device)
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
        fraction = fraction_done(self.config, self.position, len(self.images_NHWC))
        self.fraction, self.stop_signal = self.world.agree(fraction, self.stopped[0] if self.stopped else 0)

    @property
    def is_done(self) -> bool:
        return self.fraction >= 1

    def train_epoch(self, progress: TrainingProgress) -> None:
        """Train to the end of the present epoch, of the run's time, or until a signal."""
        position, learner = self.position, self.learner
        order = epoch_order(self.config, position.epoch, len(self.images_NHWC)).to(learner.device)
        start, elapsed_before = time.perf_counter(), position.elapsed_s
        first = position.step
        while position.step_in_epoch < self.steps_per_epoch and not self.is_done and not self.stop_signal:
            low = position.step_in_epoch * self.batch_size
            rows = self.world.rows(order[low : low + self.batch_size])
            epochs = position.epoch + position.step_in_epoch / self.steps_per_epoch
            learner.step(
                self.images_NHWC[rows].permute(0, 3, 1, 2).contiguous(),
                learning_rate=learning_rate(self.config, position.step, self.fraction),
                beta=effective_beta(self.config, epochs),
                fraction=self.fraction,
            )
            position.step += 1
            position.step_in_epoch += 1
            position.elapsed_s = elapsed_before + time.perf_counter() - start
            self._agree()
            if position.step & (position.step - 1) == 0 and position.step <= LAST_EARLY_STEP:
                self._log(self._summary("step"))
            if position.step % LOOK_EVERY_STEPS == 0:
                self._check_finite()
                # Not training time, as it is none at the end of an epoch.
                start += self._save_within_epoch()
            if progress.is_due:
                self._show(progress, (position.step - first) / (time.perf_counter() - start))
        synchronise(learner.device)
        position.elapsed_s = elapsed_before + time.perf_counter() - start
        if self.stop_signal and position.step_in_epoch < self.steps_per_epoch and not self.is_done:
            return
        self._end_epoch()

    def _save_within_epoch(self) -> float:
        """Write the checkpoint if it is due, and return the seconds that it took.

        After an epoch's or the run's last step the epoch's line is yet to be written: its end saves.
        """
        began = time.perf_counter()
        is_last = self.position.step_in_epoch == self.steps_per_epoch or self.is_done
        # One clock decides for all processes, since each has its part of the sums.
        if not is_last and self.world.share(self._is_due()):
            self.learner.totals.share(self.world)
            self.save()
        return time.perf_counter() - began

    def _is_due(self) -> bool:
        """Whether a checkpoint is to be written: the last one is old, and the weights are finite."""
        # A weight that is not finite makes each step one to skip: the checkpoint from before it is kept.
        is_sound = not self.learner.totals.skipped_in_a_row()
        return is_sound and time.monotonic() - self.saved_at >= self.checkpoint_every_s

    def _end_epoch(self) -> None:
        position = self.position
        summary = self._summary("epoch")
        position.skipped += summary["skipped_steps"]
        position.epoch += position.step_in_epoch == self.steps_per_epoch
        position.step_in_epoch %= self.steps_per_epoch
        if self.validation_NHWC is not None:
            summary |= self._validate()
        self._log(summary)
        self.learner.totals.clear()
        self._check_finite()
        if self._is_due():
            self.save()

    def _validate(self) -> dict[str, float]:
        """Evaluate the validation images, keep the best weights, and stop where none were better for long."""
        position = self.position
        assert self.validation_NHWC is not None
        elbo = 0.0
        if self.world.is_first:
            elbo = mean_bound(self.learner, self.validation_NHWC, binarize=self.config.binarize)
        elbo = self.world.share(elbo)
        if math.isfinite(elbo) and (position.best_elbo is None or elbo > position.best_elbo):
            position.best_elbo, position.best_epoch = elbo, position.epoch
            self.learner.average.keep_best()
        elif position.epoch - position.best_epoch >= (self.config.early_stop_epochs or 0):
            position.is_stopped = True
        self._agree()
        is_bound = self.config.objective != "ae"
        return {"validation_elbo": elbo} if is_bound else {"validation_distortion": -elbo}

    def _check_finite(self) -> None:
        in_a_row = self.learner.totals.skipped_in_a_row()
        if in_a_row >= min(MAX_SKIPPED_IN_A_ROW, self.steps_per_epoch):
            advice = f"a lower learning_rate (now {self.config.learning_rate:g})"
            if self.run.record["precision"] != "fp32":
                advice += " or --precision fp32"
            raise TrainerError(
                f"the last {in_a_row} steps, up to step {self.position.step}, had no finite loss or gradient:"
                f" start a new run with {advice}; the last checkpoint is kept"
            )

    def _log(self, values: dict[str, Any]) -> None:
        if self.world.is_first:
            # A weight that is not finite makes such figures; JSON has no word for them.
            bad = [n for n, value in values.items() if type(value) is float and not math.isfinite(value)]
            values |= dict.fromkeys(bad)
            self.run.log(values)
            if self.board is not None:
                self.board.log(values)

    def _summary(self, kind: str) -> dict[str, Any]:
        """Return the epoch's means so far, over all processes, as one line of metrics."""
        self.learner.totals.share(self.world)
        epochs = self.position.epoch + self.position.step_in_epoch / self.steps_per_epoch
        return {
            "kind": kind,
            "step": self.position.step,
            "epoch": round(epochs, 6),
            **self.learner.totals.means(),
            "learning_rate": learning_rate(self.config, self.position.step, self.fraction),
            "beta": effective_beta(self.config, epochs),
            "sigma": self.learner.likelihood.constants().sigma,
            "elapsed_s": round(self.position.elapsed_s, 3),
        }

    def _show(self, progress: TrainingProgress, steps_per_s: float) -> None:
        fraction = max(self.fraction, 1e-9)
        progress.show(
            epoch=self.position.epoch + 1,
            fraction=fraction,
            means=self.learner.totals.means(),
            images_per_s=steps_per_s * self.batch_size,
            left_s=self.position.elapsed_s * (1 - fraction) / fraction,
        )

    def save(self) -> None:
        """Write the checkpoint, one process for all."""
        if self.world.is_first:
            state = {"position": asdict(self.position)}
            write_checkpoint(self.run.checkpoint, self.learner.tensors(), state)
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
