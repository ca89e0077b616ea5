"""One call that waits for a stage, and the slices of its rows that run in batches."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from convvae_service.batching.report import SliceReport
from convvae_service.engine.stages import Rows

__all__ = ["CallSlice", "PendingCall", "SliceObserver"]

SliceObserver = Callable[[SliceReport], None]


@dataclass(eq=False, slots=True)
class PendingCall:
    """The rows of one call at one stage.

    Attributes:
        rows: The inputs.
        done: The future of the results.
        arrived_s: Time of arrival by the batcher's clock.
        observe: Called with a report of each run that has rows of the call, or None.
        num_taken: Rows that are already in a batch.
        num_returned: Rows whose results have arrived.
        results: The results so far.
    """

    rows: Rows
    done: asyncio.Future[Rows]
    arrived_s: float
    observe: SliceObserver | None = None
    num_taken: int = 0
    num_returned: int = 0
    results: Rows = ()

    def __len__(self) -> int:
        return len(self.rows[0])

    @property
    def num_left(self) -> int:
        """Number of rows that are in no batch yet."""
        return len(self) - self.num_taken

    def take(self, count: int) -> "CallSlice":
        """Return the next `count` rows as a slice for a batch."""
        start = self.num_taken
        self.num_taken += count
        return CallSlice(self, start, self.num_taken)

    def accept(self, start: int, results: Rows) -> None:
        """Store the results of the rows from `start` on. The last results complete the call."""
        count = len(results[0])
        if count == len(self):
            self.results = results
        else:
            if not self.results:
                self.results = tuple(np.empty((len(self), *r.shape[1:]), r.dtype) for r in results)
            for whole, part in zip(self.results, results, strict=True):
                whole[start : start + count] = part
        self.num_returned += count
        # The future of a cancelled or failed call is done already.
        if self.num_returned == len(self) and not self.done.done():
            self.done.set_result(self.results)

    def fail(self, error: BaseException) -> None:
        """Complete the call with `error`, unless it is done."""
        if not self.done.done():
            self.done.set_exception(error)


@dataclass(frozen=True, slots=True)
class CallSlice:
    """The rows `start` to `stop` of a call, inside one batch."""

    call: PendingCall
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def rows(self) -> Rows:
        """The inputs of these rows."""
        return tuple(array[self.start : self.stop] for array in self.call.rows)
