"""What a stage has run since it was loaded."""

import time
from dataclasses import dataclass, field

__all__ = ["StageStats", "StageTotal"]


@dataclass(slots=True)
class StageTotal:
    """A number of things, and the nanoseconds that they took together."""

    count: int = 0
    ns: int = 0

    def add(self, seconds: float, *, count: int = 1) -> None:
        """Add `count` that took `seconds` together."""
        self.count += count
        self.ns += round(seconds * 1e9)


@dataclass(slots=True)
class StageStats:
    """Sums over a stage's batches. It lives as long as its stage does.

    `queue` has the calls that reached the stage and how long they waited for a lane, `compute` the same calls
    and how long the runs took that had rows of them, `by_rows` the runs of each batch size.
    """

    rows: int = 0
    runs: int = 0
    last_run_ms: int = 0
    queue: StageTotal = field(default_factory=StageTotal)
    compute: StageTotal = field(default_factory=StageTotal)
    by_rows: dict[int, StageTotal] = field(default_factory=dict)

    def add(self, *, rows: int, calls: int, queue_s: tuple[float, ...], engine_s: float) -> None:
        """Add one run.

        Args:
            rows: Its rows.
            calls: Calls that it had rows of.
            queue_s: Waits of those calls that it was the first run for.
            engine_s: How long it took.
        """
        self.rows += rows
        self.runs += 1
        self.last_run_ms = time.time_ns() // 1_000_000
        self.queue.add(sum(queue_s), count=len(queue_s))
        # Each call waited for the whole run, and for every run that had rows of it.
        self.compute.add(engine_s * calls, count=len(queue_s))
        self.by_rows.setdefault(rows, StageTotal()).add(engine_s)
