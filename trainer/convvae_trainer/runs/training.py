"""The training of a run: the loop, the work after its last step, and the last checkpoint."""

import signal
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from convvae_trainer.console import say
from convvae_trainer.evaluation.bound import fit_sigma
from convvae_trainer.runs.context import RunContext
from convvae_trainer.runs.folder import RunFolder
from convvae_trainer.runs.live_display import LiveDisplay
from convvae_trainer.runs.lock import RunLock
from convvae_trainer.runs.loop import TrainingLoop
from convvae_trainer.runs.progress import TrainProgress
from convvae_trainer.runs.tensorboard import TensorBoardWriter
from convvae_trainer.step.train_state import TrainState

__all__ = ["CHECKPOINT_EVERY_S", "finish", "train"]

CHECKPOINT_EVERY_S = 20.0


def train(
    context: RunContext,
    run: RunFolder,
    train_state: TrainState,
    progress: TrainProgress,
    *,
    signals: Sequence[signal.Signals] = (),
    lock: RunLock | None = None,
    board: TensorBoardWriter | None = None,
    checkpoint_every_s: float = CHECKPOINT_EVERY_S,
) -> None:
    """Train from `progress` to the end of the run, and save a checkpoint of the end.

    Args:
        context: Settings, images and processes of the run.
        run: Folder of the run.
        train_state: The networks to train.
        progress: Where to start. It is advanced.
        signals: The signals so far that ask to stop (see `noted_signals`).
        lock: The lock of the run folder; None: it is not locked.
        board: Files for TensorBoard; None: there are none.
        checkpoint_every_s: Shortest time between two checkpoints, in seconds.

    Raises:
        Interrupted: A signal asked to stop; a checkpoint was saved first.
        BadRun: The last checkpoint cannot be written.
        TrainingFailed: Too many steps in a row were not finite.
    """
    if board is not None and progress.step == 0:
        board.show(step=0, elapsed_s=0.0)
    with LiveDisplay(context.console, total_epochs=context.config.total_epochs) as display:
        loop = TrainingLoop(
            context=context,
            run=run,
            train_state=train_state,
            progress=progress,
            lock=lock,
            board=board,
            display=display,
            signals=signals,
            checkpoint_every_s=checkpoint_every_s,
        )
        was_done = loop.is_done
        loop.run_to_end()
    if not progress.is_finished:
        finish(train_state, context.dataset.train)
        # Before the save, so that no checkpoint counts as the end without its final weights.
        progress.is_finished = True
        loop.save(is_last=True)
    if board is not None and not was_done:
        board.show(step=progress.step, elapsed_s=progress.elapsed_s)
    if progress.skipped:
        say(
            context.console,
            f"{progress.skipped} of {progress.step} steps had no finite loss or gradient and were skipped",
        )
    if progress.best_elbo is not None:
        say(context.console, _early_stop_text(progress))


def finish(train_state: TrainState, images_NHWC: NDArray[np.uint8]) -> None:
    """Do what follows the last step: restore the best weights, and fit a sigma that has no gradient.

    Args:
        train_state: The trained networks.
        images_NHWC: The uint8 images that they were trained on.
    """
    train_state.ema.restore_best()
    if train_state.objective.fits_sigma:
        fit_sigma(train_state, images_NHWC)


def _early_stop_text(progress: TrainProgress) -> str:
    end = f"stopped early after epoch {progress.epoch}" if progress.is_stopped else "not stopped early"
    return (
        f"{end}: the weights after epoch {progress.best_epoch} are kept, the best on the validation images"
        f" ({progress.best_elbo:.2f} nats)"
    )
