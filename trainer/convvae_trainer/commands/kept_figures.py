"""The figures that a run folder keeps: for each metric, the estimate from most images or samples."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from convvae_trainer.commands.stored_run import StoredRun
from convvae_trainer.console import say
from convvae_trainer.errors import BadRun
from convvae_trainer.evaluation.metrics import OPTIONAL_METRICS
from convvae_trainer.runs.folder import RunFolder
from convvae_trainer.runs.lock import locked

__all__ = ["SUPPORT", "keep_figures"]

# How long to wait for another process that writes in the run folder: an evaluation is done in less.
LOCK_WAIT_S = 60.0
# The counts that an optional metric rests on, the most important one first.
SUPPORT = {
    "log_likelihood": ("images", "samples"),
    "embedding": ("test_images", "train_images"),
    "frechet": ("images",),
}


def keep_figures(stored: StoredRun, figures: Mapping[str, Any], *, console: Console) -> None:
    """Merge new figures into the evaluation in the run folder.

    New optional metrics replace kept ones, except those from fewer images or samples. The console shows which
    ones are not kept. A run that has not ended keeps no figures, since its weights still change.

    Args:
        stored: The run.
        figures: All figures of an evaluation on the run's own test images, by name.
        console: The screen.
    """
    optional = {name: figures[name] for name in OPTIONAL_METRICS if figures[name] is not None}
    if not stored.has_ended:
        if optional:
            say(console, "not kept in the run folder: the run has not ended")
        return
    kept = stored.folder.read_evaluation()
    if kept is not None and not optional and {**figures, **kept} == kept:
        return
    try:
        # Another evaluation may keep other figures at the same time.
        with locked(stored.folder.path, wait_s=LOCK_WAIT_S):
            _merge(stored.folder, figures, optional, console)
    except OSError as error:
        say(console, f"not kept in the run folder: {error.strerror}")
    except BadRun as error:
        say(console, f"not kept in the run folder: {error}")


def _merge(
    folder: RunFolder, figures: Mapping[str, Any], optional: Mapping[str, Any], console: Console
) -> None:
    # A run that was killed during its evaluation has no figures yet.
    kept = folder.read_evaluation() or {}
    better = {}
    for name, figure in optional.items():
        if _support(name, figure) < _support(name, kept.get(name)):
            counts = ", ".join(f"{kept[name].get(key, 0)} {key.replace('_', ' ')}" for key in SUPPORT[name])
            say(console, f"{name.replace('_', ' ')} not kept: the run folder has one from {counts}")
        else:
            better[name] = figure
    merged = {**figures, **kept, **better}
    if merged != kept:
        folder.write_evaluation(merged)


def _support(name: str, figure: Any) -> tuple[int, ...]:
    """Return the counts that a figure rests on; a missing or damaged figure rests on nothing."""
    if not isinstance(figure, Mapping):
        return ()
    return tuple(figure.get(count, 0) for count in SUPPORT[name])
