"""One call that waits for a stage, and the slices of its rows that run in batches."""

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import dataclass

import numpy as np

from convvae_service.batching.report import SliceObserver
from convvae_service.engine.stages import Rows

__all__ = ["CallSlice", "PendingCall"]


class PendingCall:
    """The rows of one call at one stage, and the future of their results.

    `add_done_callback`, `cancel` and `result` are those of `concurrent.futures.Future`, for one callback and
    at a tenth of its cost. All methods are safe to call from any thread, `take` under the batcher's lock.

    Args:
        rows: The inputs. They are released as soon as the call is done.
        arrived_s: Time of arrival by the batcher's clock.
        observe: Called with a report of each run that has rows of the call, or None.
        forget: Takes the call out of its queue when it is cancelled.
    """

    __slots__ = (
        "_callback", "_error", "_forget", "_lock", "_num_returned", "_results", "_rows",
        "arrived_s", "done", "num_rows", "num_taken", "observe",
    )  # fmt: skip

    def __init__(
        self,
        rows: Rows,
        arrived_s: float,
        observe: SliceObserver | None,
        forget: Callable[["PendingCall"], None],
    ) -> None:
        self.arrived_s = arrived_s
        self.observe = observe
        self.num_rows = len(rows[0])
        self.num_taken = 0
        self.done = False
        self._rows = rows
        self._forget = forget
        self._num_returned = 0
        self._results: Rows = ()
        self._error: BaseException | None = None
        self._callback: Callable[[PendingCall], None] | None = None
        self._lock = threading.Lock()

    @property
    def num_left(self) -> int:
        """Number of rows that are in no batch yet."""
        return self.num_rows - self.num_taken

    def take(self, count: int) -> "CallSlice":
        """Return the next `count` rows as a slice for a batch."""
        start, self.num_taken = self.num_taken, self.num_taken + count
        rows = self._rows if count == self.num_rows else tuple(a[start : start + count] for a in self._rows)
        return CallSlice(self, start, rows)

    def accept(self, start: int, results: Rows) -> None:
        """Store the results of the rows from `start` on. The last results complete the call."""
        count = len(results[0])
        with self._lock:
            if self.done:
                return
            if count == self.num_rows:
                self._results = results
            elif not self._results:
                self._results = tuple(np.empty((self.num_rows, *r.shape[1:]), r.dtype) for r in results)
            whole = self._results
        if whole is not results:
            for array, part in zip(whole, results, strict=True):
                array[start : start + count] = part
        with self._lock:
            self._num_returned += count
            if self._num_returned < self.num_rows or self.done:
                return
            self.done = True
        self._finish()

    def fail(self, error: BaseException) -> None:
        """Complete the call with `error`, unless it is done."""
        with self._lock:
            if self.done:
                return
            self.done = True
            self._error = error
        # Before the rows are released: a batch may be taking some of them.
        self._forget(self)
        self._finish()

    def cancel(self) -> bool:
        """Give the call up: rows that wait are not computed. Return False if it is done already."""
        with self._lock:
            if self.done:
                return False
            self.done = True
            self._error = CancelledError()
        self._forget(self)
        self._finish()
        return True

    def add_done_callback(self, callback: Callable[["PendingCall"], None]) -> None:
        """Call `callback` when the call is done, in the thread that completes it; at once if it is done."""
        with self._lock:
            if not self.done:
                self._callback = callback
                return
        callback(self)

    def result(self) -> Rows:
        """Return the results of a call that is done.

        Raises:
            CancelledError: The call was cancelled.
            Exception: The error of the run.
        """
        if self._error is None:
            return self._results
        try:
            raise self._error
        finally:
            # The error's traceback has this frame, and the call has the error.
            del self

    def _finish(self) -> None:
        self._rows = ()
        callback, self._callback = self._callback, None
        if callback is not None:
            callback(self)


# A frozen one takes twice as long to make, and each call needs one.
@dataclass(eq=False, slots=True)
class CallSlice:
    """Some rows of a call, from `start` on, inside one batch."""

    call: PendingCall
    start: int
    rows: Rows

    def __len__(self) -> int:
        return len(self.rows[0])
