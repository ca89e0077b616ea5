"""The progress of a run, on a terminal of 80 columns or more."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, Protocol, cast

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Column
from rich.text import Text

__all__ = ["Progress", "SilentProgress", "progress_bar"]

# Each refresh takes about a millisecond.
REFRESHES_PER_S = 4


class Progress(Protocol):
    """What a run tells of its progress."""

    def resume(self, images: int) -> None:
        """Say how many images runs before have done."""

    def advance(self, rows: int, failed: int, *, expected: int | None) -> None:
        """Say how many images were embedded and failed since the last call, and how many there are in all."""


class SilentProgress:
    """A progress that nobody sees."""

    def resume(self, images: int) -> None:
        """Do nothing."""

    def advance(self, rows: int, failed: int, *, expected: int | None) -> None:
        """Do nothing."""


class _Counts(ProgressColumn):
    def render(self, task: Task) -> Text:
        total = "?" if task.total is None else f"{task.total:,.0f}"
        return Text(f"{task.completed:,.0f}/{total}")


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        rate = task.fields["rate"]
        return Text("" if rate is None else f"{rate:,.0f} img/s")


class _Others(ProgressColumn):
    def render(self, task: Task) -> Text:
        counts = {name: task.fields[name] for name in ("failed", "resumed")}
        return Text(", ".join(f"{_short(count)} {name}" for name, count in counts.items() if count))


def _short(count: int) -> str:
    """Return a number in at most 6 letters, so that a line has room for it."""
    if count < 100_000:
        return f"{count:,}"
    return f"{count // 1000}k" if count < 1_000_000 else f"{count / 1e6:,.1f}M"


class _BarProgress:
    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._task = bar.add_task("", total=None, rate=None, failed=0, resumed=0)
        self._started_s = time.monotonic()
        self._new = self._failed = 0

    def resume(self, images: int) -> None:
        self._started_s = time.monotonic()
        # Work of runs before is not advance, so that it does not count in the remaining time.
        self._bar.reset(self._task, completed=images, total=None, rate=None, failed=0, resumed=images)

    def advance(self, rows: int, failed: int, *, expected: int | None) -> None:
        self._new += rows + failed
        self._failed += failed
        rate = self._new / max(1e-6, time.monotonic() - self._started_s)
        self._bar.update(self._task, total=expected, failed=self._failed, rate=rate)
        self._bar.advance(self._task, rows + failed)


class _Expendable:
    """The stream of a terminal that may go away during a run. All else is as in the stream below."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with suppress(OSError):
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


@contextmanager
def progress_bar(console: Console) -> Iterator[Progress]:
    """Show a bar with images, images per second, remaining time, failures and resumed work.

    Nothing is shown if the console is no terminal.
    """
    if not console.is_terminal:
        # Older releases of rich print an empty line for a bar that is disabled.
        yield SilentProgress()
        return
    console.file = cast(IO[str], _Expendable(console.file))
    bar = Bar(
        BarColumn(bar_width=None),
        # In a narrow terminal the bar becomes shorter, and no text is divided.
        _Counts(Column(no_wrap=True)),
        _Rate(Column(no_wrap=True)),
        TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
        _Others(Column(no_wrap=True)),
        console=console,
        refresh_per_second=REFRESHES_PER_S,
        transient=True,
    )
    with bar:
        yield _BarProgress(bar)
