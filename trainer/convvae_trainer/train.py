"""The training loop: data stay on the device as uint8 and are indexed there; a signal ends it whole."""

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from types import FrameType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from convvae_trainer.checkpoint import write_checkpoint
from convvae_trainer.config import Config
from convvae_trainer.device import synchronise
from convvae_trainer.errors import Interrupted, TrainerError
from convvae_trainer.learner import TOTALS, Learner
from convvae_trainer.progress import TrainingProgress
from convvae_trainer.run_folder import RunFolder

__all__ = ["Position", "train"]

CHECKPOINT_EVERY_S = 20.0
LAST_EARLY_STEP = 4096
FINAL_RATE = 0.02
WARMUP_FRACTION = 0.1


@dataclass(kw_only=True, slots=True)
class Position:
    """How far a run is: whole epochs done, steps in the present one, and the training time so far."""

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    elapsed_s: float = 0.0
    skipped: int = 0


def train(
    run: RunFolder,
    learner: Learner,
    images_NHWC: NDArray[np.uint8],
    position: Position,
    *,
    console: Console,
    checkpoint_every_s: float = CHECKPOINT_EVERY_S,
) -> Position:
    """Train from `position` to the end of the run, and leave a checkpoint of the end.

    Raises:
        Interrupted: A signal asked to stop; a checkpoint was saved first.
        TrainerError: A whole epoch's steps were not finite.
    """
    loop = _Loop(run, learner, images_NHWC, position, checkpoint_every_s)
    with (
        _signals() as stopped,
        TrainingProgress(console, total_epochs=run.config.total_epochs) as progress,
    ):
        while not loop.is_done:
            loop.train_epoch(progress, stopped)
            # A signal in the last step finds a run that is finished.
            if stopped and not loop.is_done:
                loop.save()
                raise Interrupted(stopped[0], step=loop.position.step)
    loop.save()
    return loop.position


class _Loop:
    def __init__(
        self,
        run: RunFolder,
        learner: Learner,
        images_NHWC: NDArray[np.uint8],
        position: Position,
        checkpoint_every_s: float,
    ) -> None:
        self.run = run
        self.config = run.config
        self.learner = learner
        self.position = position
        self.images = torch.from_numpy(images_NHWC).permute(0, 3, 1, 2).contiguous().to(learner.device)
        self.batch_size = min(self.config.batch_size, len(images_NHWC))
        # Batches have one fixed size; what is left over has its chance in the next epoch's order.
        self.steps_per_epoch = len(images_NHWC) // self.batch_size
        self.checkpoint_every_s = checkpoint_every_s
        self.saved_at = time.monotonic()

    @property
    def fraction(self) -> float:
        """How much of the run is done, 0 to 1."""
        if self.config.minutes is not None:
            return min(1.0, self.position.elapsed_s / (60 * self.config.minutes))
        return self.position.step / ((self.config.total_epochs or 0) * self.steps_per_epoch)

    @property
    def is_done(self) -> bool:
        return self.fraction >= 1

    def train_epoch(self, progress: TrainingProgress, stopped: list[signal.Signals]) -> None:
        """Train to the end of the present epoch, of the run's time, or until a signal."""
        position, learner = self.position, self.learner
        order = epoch_order(self.config, position.epoch, len(self.images)).to(learner.device)
        start, elapsed_before = time.perf_counter(), position.elapsed_s
        first = position.step
        while position.step_in_epoch < self.steps_per_epoch and not self.is_done and not stopped:
            low = position.step_in_epoch * self.batch_size
            batch = self.images[order[low : low + self.batch_size]]
            epochs = position.epoch + position.step_in_epoch / self.steps_per_epoch
            learner.step(
                batch,
                learning_rate=learning_rate(self.config, position.step, self.fraction),
                beta=effective_beta(self.config, epochs),
            )
            position.step += 1
            position.step_in_epoch += 1
            position.elapsed_s = elapsed_before + time.perf_counter() - start
            if position.step & (position.step - 1) == 0 and position.step <= LAST_EARLY_STEP:
                self.run.log(self._summary("step"))
            if progress.is_due:
                self._show(progress, (position.step - first) / (time.perf_counter() - start))
        synchronise(learner.device)
        position.elapsed_s = elapsed_before + time.perf_counter() - start
        if stopped and position.step_in_epoch < self.steps_per_epoch and not self.is_done:
            return
        summary = self._summary("epoch")
        self.run.log(summary)
        position.skipped += summary["skipped_steps"]
        position.epoch += position.step_in_epoch == self.steps_per_epoch
        position.step_in_epoch %= self.steps_per_epoch
        learner.totals.zero_()
        if summary["skipped_steps"] == summary["steps"]:
            raise TrainerError(
                f"no step of epoch {position.epoch} had a finite loss:"
                " lower learning_rate, or use --precision fp32"
            )
        if time.monotonic() - self.saved_at >= self.checkpoint_every_s:
            self.save()

    def _summary(self, kind: str) -> dict[str, Any]:
        """Return the epoch's means so far as one line of metrics."""
        totals = dict(zip(TOTALS, self.learner.totals.tolist(), strict=True))
        finite = max(totals["steps"], 1.0)
        distortion, rate = totals["distortion"] / finite, totals["rate"] / finite
        epochs = self.position.epoch + self.position.step_in_epoch / self.steps_per_epoch
        return {
            "kind": kind,
            "step": self.position.step,
            "epoch": round(epochs, 6),
            "elbo": -(distortion + rate),
            "distortion": distortion,
            "rate": rate,
            "gradient_norm": totals["gradient_norm"] / finite,
            "learning_rate": learning_rate(self.config, self.position.step, self.fraction),
            "beta": effective_beta(self.config, epochs),
            "sigma": self.learner.likelihood.constants().sigma,
            "steps": int(totals["steps"] + totals["skipped"]),
            "skipped_steps": int(totals["skipped"]),
            "elapsed_s": round(self.position.elapsed_s, 3),
        }

    def _show(self, progress: TrainingProgress, steps_per_s: float) -> None:
        summary = self._summary("step")
        fraction = max(self.fraction, 1e-9)
        progress.show(
            epoch=self.position.epoch + 1,
            fraction=fraction,
            distortion=summary["distortion"],
            rate=summary["rate"],
            images_per_s=steps_per_s * self.batch_size,
            left_s=self.position.elapsed_s * (1 - fraction) / fraction,
        )

    def save(self) -> None:
        """Write the checkpoint."""
        state = {"position": asdict(self.position), "steps_per_epoch": self.steps_per_epoch}
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
