"""A stopwatch for training time."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Stopwatch"]


class Stopwatch:
    """Measures the time since its creation, without the time in `paused` blocks."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    @property
    def elapsed_s(self) -> float:
        """Seconds so far."""
        return time.perf_counter() - self._start

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time of the block out."""
        paused_at = time.perf_counter()
        yield
        self._start += time.perf_counter() - paused_at
