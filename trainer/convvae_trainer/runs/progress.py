"""The progress of a run, and how much of it is done."""

from dataclasses import dataclass

from convvae_trainer.settings.config import Config

__all__ = ["TrainProgress", "batch_size", "end_text", "epochs_done", "fraction_done"]


@dataclass(kw_only=True, slots=True)
class TrainProgress:
    """The progress of a run: finished epochs, steps of the current epoch, all steps, training time.

    `skipped` counts the steps whose loss or gradient was not finite. `best_elbo` is the highest ELBO of the
    validation images, after `best_epoch` epochs, in a run that may stop early; else None. `patience_epoch` is
    the epoch from which a run that was given a later end counts those without a better ELBO. `is_stopped`
    says that the run stopped early, `is_finished` that its weights are final: the last step is done, and what
    follows it.
    """

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    elapsed_s: float = 0.0
    skipped: int = 0
    best_elbo: float | None = None
    best_epoch: int = 0
    patience_epoch: int = 0
    is_stopped: bool = False
    is_finished: bool = False


def batch_size(config: Config, num_images: int) -> int:
    """Return the number of images in a step of a run that trains on `num_images`."""
    return min(config.batch_size, num_images)


def fraction_done(config: Config, progress: TrainProgress, num_images: int) -> float:
    """Return how much of a run that trains on `num_images` is done, 0 to 1."""
    if progress.is_stopped:
        return 1.0
    if config.minutes is not None:
        return min(1.0, progress.elapsed_s / (60 * config.minutes))
    return epochs_done(config, progress, num_images) / (config.total_epochs or 0)


def epochs_done(config: Config, progress: TrainProgress, num_images: int) -> float:
    """Return how many epochs a run that trains on `num_images` has had, with the part of the current one."""
    return progress.step / (num_images // batch_size(config, num_images))


def end_text(config: Config) -> str:
    """Return the end of a run in words: its epochs or minutes."""
    return f"{config.total_epochs} epochs" if config.minutes is None else f"{config.minutes:g} minutes"
