"""Medians and spreads of the windows of one cell and server."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bench.serving.window import Window

__all__ = ["Spread", "Summary"]


@dataclass(frozen=True)
class Spread:
    """Median, first and third quartile."""

    median: float
    q1: float
    q3: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Return the spread of some values."""
        q1, median, q3 = (round(float(value), 2) for value in np.percentile(values, (25, 50, 75)))
        return cls(median, q1, q3)

    def __str__(self) -> str:
        """Return `median (q1-q3)`, to three figures or one decimal."""
        digits = 0 if abs(self.median) >= 100 else 1
        return f"{self.median:,.{digits}f} ({self.q1:,.{digits}f} to {self.q3:,.{digits}f})"


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The figures of the windows of one cell and server.

    Attributes:
        cpu_us: Processor microseconds of the server's process tree for a row.
        bare_us: The same of bare ONNX Runtime.
        beyond_us: The difference, window by window.
        rows_per_s: Median of the windows.
        p50_ms: Latency over all windows.
        p99_ms: Latency over all windows.
        batch_rows: Median; None if the server does not tell.
        caller_us: Processor microseconds of the callers for a call, median.
        windows: Windows.
    """

    cpu_us: Spread
    bare_us: Spread
    beyond_us: Spread
    rows_per_s: float
    p50_ms: float
    p99_ms: float
    batch_rows: float | None
    caller_us: float
    windows: int

    @classmethod
    def of(cls, windows: Sequence[Window]) -> "Summary":
        """Return the summary of some windows."""
        latencies_ms = np.concatenate([window.latencies_ms for window in windows])
        sizes = [window.batch_rows for window in windows if window.batch_rows is not None]
        return cls(
            cpu_us=Spread.of([window.cpu_us for window in windows]),
            bare_us=Spread.of([window.bare_us for window in windows]),
            beyond_us=Spread.of([window.cpu_us - window.bare_us for window in windows]),
            rows_per_s=round(statistics.median(window.rows_per_s for window in windows), 1),
            p50_ms=round(float(np.percentile(latencies_ms, 50)), 2),
            p99_ms=round(float(np.percentile(latencies_ms, 99)), 2),
            batch_rows=round(statistics.median(sizes), 1) if sizes else None,
            caller_us=round(statistics.median(window.caller_us for window in windows), 1),
            windows=len(windows),
        )

    def __str__(self) -> str:
        """Return the figures as one line."""
        return (
            f"beyond {self.beyond_us!s:22} server {self.cpu_us!s:24} bare {self.bare_us!s:20} us a row"
            f"  batch {self.batch_rows}  {self.rows_per_s:,.0f} rows/s"
            f"  p50 {self.p50_ms} p99 {self.p99_ms} ms  callers {self.caller_us:.0f} us a call"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the figures for JSON."""
        return asdict(self)
