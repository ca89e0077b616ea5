"""Reports of a batch that has run: one for the metrics, and one per call for its trace."""

from collections.abc import Callable
from typing import NamedTuple

__all__ = ["BatchReport", "SliceObserver", "SliceReport"]


class BatchReport(NamedTuple):
    """One run of a stage, for the metrics.

    Attributes:
        stage: Name of the stage.
        rows: Rows in the batch.
        queue_s: Waiting time of each call whose first rows are in the batch, in seconds.
        engine_s: Duration of the run in seconds.
    """

    stage: str
    rows: int
    queue_s: tuple[float, ...]
    engine_s: float


class SliceReport(NamedTuple):
    """The part of one call in one run, for the trace of the call.

    Attributes:
        stage: Name of the stage.
        rows: Rows of the call in the batch.
        batch_rows: All rows in the batch.
        is_first: Whether the first rows of the call are among them.
        times_s: Arrival of the call, start of the run and end of the run, by the batcher's clock.
        now_s: The present time by the same clock.
    """

    stage: str
    rows: int
    batch_rows: int
    is_first: bool
    times_s: tuple[float, float, float]
    now_s: float


SliceObserver = Callable[[SliceReport], None]
