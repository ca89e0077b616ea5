"""What is told of a batch that has run: to metrics, and to the traces of its calls."""

from dataclasses import dataclass

__all__ = ["BatchReport", "SliceReport"]


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchReport:
    """What one run of a stage was: for metrics."""

    stage: str
    rows: int
    queue_s: tuple[float, ...]
    engine_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class SliceReport:
    """What became of the rows of one call in one run: for traces.

    `times_s` are the arrival of the call's rows and the start and end of the run, `now_s` the present, all by
    the batcher's clock. `is_first` says that the call's rows have waited until now.
    """

    stage: str
    rows: int
    batch_rows: int
    is_first: bool
    times_s: tuple[float, float, float]
    now_s: float
