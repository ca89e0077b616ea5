"""The progress bar of a run."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

__all__ = ["progress_bar"]

# Each refresh takes about a millisecond.
REFRESHES_PER_S = 4


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        rate = task.finished_speed or task.speed
        return Text("" if rate is None else f"{rate:,.0f} rows/s")


@contextmanager
def progress_bar(console: Console, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar with rows, rows per second and remaining time, if the console is a terminal.

    Yields:
        A function that adds a number of completed rows.
    """
    if not console.is_terminal:
        # Older releases of rich print an empty line for a bar that is disabled.
        yield lambda _: None
        return
    bar = Progress(
        TextColumn("embedding"),
        BarColumn(bar_width=None),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
        _Rate(),
        TimeRemainingColumn(compact=True),
        console=console,
        refresh_per_second=REFRESHES_PER_S,
        transient=True,
    )
    task = bar.add_task("", total=total)
    with bar:
        yield lambda rows: bar.advance(task, rows)
