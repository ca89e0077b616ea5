"""The statistics of a stage since it was loaded."""

import threading
import time
from dataclasses import dataclass, field, replace

__all__ = ["StageStats", "StageTotal"]


@dataclass(slots=True)
class StageTotal:
    """A count, and the total time in nanoseconds."""

    count: int = 0
    ns: int = 0

    def add(self, seconds: float, *, count: int = 1) -> None:
        """Add `count` events with a total time of `seconds`."""
        self.count += count
        self.ns += round(seconds * 1e9)


@dataclass(slots=True)
class StageStats:
    """Sums over all batches of a stage, which several lanes may add to.

    Attributes:
        rows: Rows of all runs.
        runs: Number of runs.
        last_run_ms: Time of the last run, in milliseconds since 1970; 0 before the first.
        queue: Calls that reached the stage, and their waiting time for a lane.
        compute: The same calls, and the duration of the runs that had rows of them.
        by_rows: Runs by batch size, and their duration.
    """

    rows: int = 0
    runs: int = 0
    last_run_ms: int = 0
    queue: StageTotal = field(default_factory=StageTotal)
    compute: StageTotal = field(default_factory=StageTotal)
    by_rows: dict[int, StageTotal] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def snapshot(self) -> "StageStats":
        """Return a copy that lanes no longer change."""
        with self._lock:
            return replace(
                self,
                queue=replace(self.queue),
                compute=replace(self.compute),
                by_rows={rows: replace(total) for rows, total in self.by_rows.items()},
                _lock=threading.Lock(),
            )

    def add(self, *, rows: int, calls: int, queue_s: tuple[float, ...], engine_s: float) -> None:
        """Add one run.

        Args:
            rows: Rows of the batch.
            calls: Number of calls with rows in the batch.
            queue_s: Waiting time of each call whose first rows are in the batch, in seconds.
            engine_s: Duration of the run in seconds.
        """
        with self._lock:
            self.rows += rows
            self.runs += 1
            self.last_run_ms = time.time_ns() // 1_000_000
            self.queue.add(sum(queue_s), count=len(queue_s))
            # Each call waits for the whole run, and for every run that has rows of it.
            self.compute.add(engine_s * calls, count=len(queue_s))
            total = self.by_rows.get(rows)
            if total is None:
                total = self.by_rows[rows] = StageTotal()
            total.add(engine_s)
