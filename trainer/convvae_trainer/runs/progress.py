"""How far a run is, and whether its weights are those that it was to end with."""

from dataclasses import dataclass

from convvae_trainer.data.dataset import num_validation
from convvae_trainer.settings.config import Config

__all__ = ["TrainProgress", "batch_size", "fraction_done", "is_finished", "trained_images"]


@dataclass(kw_only=True, slots=True)
class TrainProgress:
    """How far a run is: whole epochs done, steps in the present one, and the training time so far.

    `best_elbo` is that of the validation images after `best_epoch` epochs, where the run has such images.
    `is_finished` says that what follows the last step is done too; None, of an earlier trainer's checkpoint,
    that nothing is known of it.
    """

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    elapsed_s: float = 0.0
    skipped: int = 0
    best_elbo: float | None = None
    best_epoch: int = 0
    is_stopped: bool = False
    is_finished: bool | None = None


def batch_size(config: Config, count: int) -> int:
    """Return how many of `count` training images a step takes."""
    return min(config.batch_size, count)


def trained_images(config: Config, count: int) -> int:
    """Return how many of a data set's `count` training images are trained on: all but those that validate."""
    return count if config.early_stop_epochs is None else count - num_validation(count)


def fraction_done(config: Config, progress: TrainProgress, count: int) -> float:
    """Return how much of a run that trains on `count` images is done, 0 to 1."""
    if progress.is_stopped:
        return 1.0
    if config.minutes is not None:
        return min(1.0, progress.elapsed_s / (60 * config.minutes))
    return progress.step / ((config.total_epochs or 0) * (count // batch_size(config, count)))


def is_finished(config: Config, progress: TrainProgress, count: int) -> bool:
    """Whether a run that trains on `count` images has ended, with the weights that it was to end with."""
    if progress.is_finished is None:
        return fraction_done(config, progress, count) >= 1
    return progress.is_finished
