"""A later end for a run: what it may be, and what it means for the learning rate.

The schedules of a run depend on the share of it that is done. With a later end that share is smaller, so the
learning rate rises to the value that a run of the new length has at this step, and falls to the new end: a
warm restart (Loshchilov and Hutter 2017).
"""

from dataclasses import replace

from convvae_trainer.errors import BadRun
from convvae_trainer.objectives.registry import objective_class
from convvae_trainer.runs.progress import TrainProgress, end_text, epochs_done, fraction_done
from convvae_trainer.runs.schedules import FINAL_RATE, learning_rate
from convvae_trainer.settings.config import Config

__all__ = ["check_new_end", "has_new_end", "new_end_text"]


def has_new_end(own: Config, given: Config, progress: TrainProgress) -> bool:
    """Return whether a resumed run gets another end: other epochs or minutes, or any after an early stop.

    Args:
        own: The settings of the run.
        given: The same with the end that the caller asks for.
        progress: The progress of the run.
    """
    is_same = (own.total_epochs, own.minutes) == (given.total_epochs, given.minutes)
    return not is_same or progress.is_stopped


def check_new_end(own: Config, given: Config, progress: TrainProgress, *, num_images: int) -> None:
    """Check that a run can go on to a new end.

    Args:
        own: The settings of the run.
        given: The same with the new end.
        progress: The progress of the run.
        num_images: The number of images that the run trains on.

    Raises:
        BadRun: The end is not after what is done, or the run would go back to its first phase.
    """
    going = replace(progress, is_stopped=False)
    done, share = _done_text(given, going, num_images), fraction_done(given, going, num_images)
    if share >= 1:
        raise BadRun(f"the run has had {done}: its new end, {end_text(given)}, must be later")
    start = objective_class(own.objective).later_phase_start(own)
    if fraction_done(own, progress, num_images) >= start > share:
        amount = going.elapsed_s / 60 if given.minutes is not None else epochs_done(given, going, num_images)
        most = int(10 * amount / start) / 10
        raise BadRun(
            f"the run has had {done}: with an end of {end_text(given)} it would go back to the first phase of"
            f" {own.objective}, which is {100 * start:g} % of a run: give an end of {most:g} at most"
        )


def new_end_text(given: Config, progress: TrainProgress, *, num_images: int) -> str:
    """Return a line on the new end of a run and on its learning rate. `progress` goes on from here."""
    share = fraction_done(given, progress, num_images)
    rate = learning_rate(given, progress.step, share)
    return (
        f"new end    {end_text(given)}, of which {_done_text(given, progress, num_images)} are done; the"
        f" learning rate goes on at {rate:.1e}, as in a run of this length, and falls to"
        f" {FINAL_RATE * given.learning_rate:.1e}"
    )


def _done_text(config: Config, progress: TrainProgress, num_images: int) -> str:
    if config.minutes is not None:
        return f"{progress.elapsed_s / 60:.1f} minutes"
    return f"{epochs_done(config, progress, num_images):g} epochs"
