"""Output on the screen: plain lines, and the progress of long computations."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

__all__ = ["LINE_EVERY_S", "REFRESH_S", "Countdown", "clock", "say"]

REFRESH_S = 0.25
LINE_EVERY_S = 10.0


def say(console: Console, text: str) -> None:
    """Print one line without markup, highlighting or line breaks."""
    console.print(text, highlight=False, soft_wrap=True, markup=False)


def clock(seconds: float) -> str:
    """Return a time span as `M:SS` or `H:MM:SS`."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Countdown:
    """The progress of a long computation: the share that is done, and the time left.

    A terminal shows a bar, other outputs a line every 10 s.

    Args:
        console: The screen.
        text: Words for the computation.
    """

    def __init__(self, console: Console, text: str) -> None:
        self._console = console
        self._text = text
        self._start = self._next = 0.0
        self._bar = Progress(
            TextColumn("{task.fields[text]}"), BarColumn(bar_width=20), console=console, transient=True
        )
        self._task = self._bar.add_task("", total=1.0, text=text)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar.start()
        self._start = time.monotonic()
        self._next = self._start + (REFRESH_S if self._console.is_terminal else LINE_EVERY_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    def show(self, share: float) -> None:
        """Show the share of the work that is done, 0 to 1. Calls between two updates return at once."""
        now = time.monotonic()
        if now < self._next or share <= 0:
            return
        left_s = (now - self._start) * (1 - share) / share
        text = f"{self._text}: {share:.1%}, {clock(left_s)} left"
        if self._console.is_terminal:
            self._bar.update(self._task, completed=share, text=text)
            self._next = now + REFRESH_S
        else:
            self._console.print(text, soft_wrap=True, highlight=False)
            self._next = now + LINE_EVERY_S
