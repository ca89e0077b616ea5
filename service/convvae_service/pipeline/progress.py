"""What the user sees of a run: a bar while it goes on, a summary at its end."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from convvae_service.pipeline.encoders import EncoderInfo
from convvae_service.pipeline.run import Done

__all__ = ["progress_bar", "summary_json", "summary_line"]

# A terminal that is read by people; each refresh costs about a millisecond.
REFRESHES_PER_S = 4


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        rate = task.finished_speed or task.speed
        return Text("" if rate is None else f"{rate:,.0f} rows/s")


@contextmanager
def progress_bar(console: Console, total: int) -> Iterator[Callable[[int], None]]:
    """Show rows, rows per second and the time left, on a terminal; yield what to call with rows done."""
    bar = Progress(
        TextColumn("embedding"),
        BarColumn(bar_width=None),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
        _Rate(),
        TimeRemainingColumn(compact=True),
        console=console,
        refresh_per_second=REFRESHES_PER_S,
        transient=True,
        disable=not console.is_terminal,
    )
    task = bar.add_task("", total=total)
    with bar:
        yield lambda rows: bar.advance(task, rows)


def summary_line(done: Done, info: EncoderInfo, path: Path) -> str:
    """Return the summary as one line."""
    return (
        f"{done.rows:,} rows in {done.seconds:.1f} s ({done.rows / done.seconds:,.0f} rows/s),"
        f" {len(done.skipped):,} skipped, by {info.input.model}@{info.version} {info.precision}:"
        f" {path} ({decimal(done.num_bytes)})"
    )


def summary_json(done: Done, info: EncoderInfo, path: Path) -> str:
    """Return the summary as one JSON object, with every row that was skipped."""
    return json.dumps(
        {
            "file": str(path),
            "rows": done.rows,
            "seconds": round(done.seconds, 3),
            "rows_per_s": round(done.rows / done.seconds, 1),
            "bytes": done.num_bytes,
            "model": info.input.model,
            "version": info.version,
            "precision": info.precision,
            "skipped": len(done.skipped),
            "skipped_rows": [{"id": row.id, "reason": row.reason} for row in done.skipped],
        }
    )
