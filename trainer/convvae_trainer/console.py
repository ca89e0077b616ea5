"""Output on the screen: plain lines, and the progress of long computations."""

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from convvae_trainer.streams import printable

__all__ = ["Countdown", "ProgressLine", "clock", "fitted", "say"]

# Seconds between two updates of a bar, and between two lines.
REFRESH_S = 0.25
LINE_EVERY_S = 10.0
# Columns of a bar, and of one on a terminal with fewer columns than this.
BAR_COLUMNS = 20
NARROW_BAR_COLUMNS = 10
NARROW_COLUMNS = 70


def say(console: Console, text: str) -> None:
    """Print one line without markup, highlighting or line breaks. Control characters are escaped."""
    console.print(printable(text), highlight=False, soft_wrap=True, markup=False)


def clock(seconds: float) -> str:
    """Return a time span as `M:SS` or `H:MM:SS`."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def fitted(words: Sequence[str], last: Sequence[str], *, columns: int) -> str:
    """Return a line of `words` and `last`, without the last ones of `words` for which there is no room."""
    for count in range(len(words), 0, -1):
        line = "  ".join([*words[:count], *last])
        if len(line) <= columns:
            return line
    return "  ".join(last)


class ProgressLine:
    """A line on a long computation: with a bar on a terminal, as a new line every 10 s elsewhere.

    Args:
        console: The screen.
        text: The line until the first `show`.
    """

    def __init__(self, console: Console, text: str) -> None:
        self._console = console
        self._interval_s = REFRESH_S if console.is_terminal else LINE_EVERY_S
        self._next_s = 0.0
        self._bar_columns = BAR_COLUMNS if console.width >= NARROW_COLUMNS else NARROW_BAR_COLUMNS
        self._bar = Progress(
            TextColumn("{task.fields[text]}"),
            BarColumn(bar_width=self._bar_columns),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("", total=1.0, text=text)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar.start()
        self._next_s = time.monotonic() + self._interval_s
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    @property
    def is_due(self) -> bool:
        """Whether it is time to show something. This is cheap to ask in each step."""
        return time.monotonic() >= self._next_s

    @property
    def columns(self) -> int:
        """The columns that a text may have, so that it and the bar fit into a line."""
        return self._console.width - (self._bar_columns + 1 if self._console.is_terminal else 0)

    def show(self, text: str, *, share: float) -> None:
        """Show a text, and the share of the work that is done, 0 to 1."""
        if self._console.is_terminal:
            self._bar.update(self._task, completed=share, text=text)
        else:
            self._console.print(text, soft_wrap=True, highlight=False)
        self._next_s = time.monotonic() + self._interval_s


class Countdown(ProgressLine):
    """The progress of a long computation from now on: the share that is done, and the time left.

    Args:
        console: The screen.
        text: Words for the computation.
    """

    def __init__(self, console: Console, text: str) -> None:
        super().__init__(console, text)
        self._text = text
        self._start_s = time.monotonic()

    def show_share(self, share: float) -> None:
        """Show the share of the work that is done, 0 to 1. Calls between two updates return at once."""
        if share > 0 and self.is_due:
            left_s = (time.monotonic() - self._start_s) * (1 - share) / share
            self.show(f"{self._text}: {share:.1%}, {clock(left_s)} left", share=share)
