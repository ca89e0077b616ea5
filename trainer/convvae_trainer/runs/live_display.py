"""The display of training: a live bar on a terminal, a line every ten seconds elsewhere."""

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from convvae_trainer.console import LINE_EVERY_S, REFRESH_S, clock

__all__ = ["LiveDisplay"]

_FIGURES = {
    "elbo": "ELBO",
    "distortion": "distortion",
    "rate": "rate",
    "feature_distortion": "feature distortion",
    "discrimination": "discrimination",
    "adversarial": "adversarial",
}


class LiveDisplay:
    """Shows epoch, ELBO, distortion, rate, images per second and the time left.

    Args:
        console: Where to show it.
        total_epochs: Epochs of the run; None if time limits it.
    """

    def __init__(self, console: Console, *, total_epochs: int | None) -> None:
        self._console = console
        self._of = "" if total_epochs is None else f"/{total_epochs}"
        self._next = 0.0
        self._bar = Progress(
            TextColumn("{task.fields[text]}"), BarColumn(bar_width=20), console=console, transient=True
        )
        self._task = self._bar.add_task("", total=1.0, text="starting")

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar.start()
        self._next = time.monotonic() + (0 if self._console.is_terminal else LINE_EVERY_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    @property
    def is_due(self) -> bool:
        """Whether it is time to show something. This is cheap to ask in each step."""
        return time.monotonic() >= self._next

    def show(
        self,
        *,
        epoch: int,
        fraction: float,
        means: Mapping[str, Any],
        images_per_s: float,
        left_s: float,
    ) -> None:
        """Show the state of the run.

        Args:
            epoch: The current epoch, from 1.
            fraction: How much of the run is done, 0 to 1.
            means: The means of `StepMetrics`, in nats per image.
            images_per_s: Training images per second.
            left_s: Seconds to the end of the run.
        """
        words = [f"epoch {epoch}{self._of}"]
        words += [
            f"{label} {means[name]:.2f}" for name, label in _FIGURES.items() if means.get(name) is not None
        ]
        if means["active_units"] is not None:
            words.append(f"{means['active_units']} active units")
        if means["skipped_steps"]:
            words.append(f"{means['skipped_steps']} steps skipped")
        text = "  ".join([*words, f"{images_per_s:,.0f} images/s", f"{clock(left_s)} left"])
        if self._console.is_terminal:
            self._bar.update(self._task, completed=fraction, text=text)
            self._next = time.monotonic() + REFRESH_S
        else:
            self._console.print(text, soft_wrap=True, highlight=False)
            self._next = time.monotonic() + LINE_EVERY_S
