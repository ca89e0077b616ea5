"""Which request to send when: order, number in flight, retries and time. State only; the clients drive it."""

import heapq
import time
from collections.abc import Callable, Iterator
from typing import Any

from convvae.calls import Batch, Call
from convvae.errors import ConvvaeError, DeadlineExceeded, Overloaded
from convvae.retry import RetryPolicy
from convvae.status import rebase

__all__ = ["Clock", "Flight", "TimeLimit"]

Clock = Callable[[], float]


class TimeLimit:
    """The time of one call of the client.

    A request and its retries may take `timeout_s`, counted from when it is first sent. The call as a whole,
    with its look-ups, may take `timeout_s` for each round of requests in flight: a call that fits in one
    round ends within `timeout_s`.
    """

    def __init__(self, timeout_s: float, *, clock: Clock = time.monotonic) -> None:
        self.timeout_s = timeout_s
        self.clock = clock
        self._start = clock()

    def end(self, requests: int, in_flight: int) -> float:
        """Return the clock's reading at which a batch of `requests` must have ended."""
        rounds = max(1, -(-requests // in_flight))
        return self._start + self.timeout_s * rounds


class Flight:
    """One batch on its way.

    The driver sends what `due` yields, reports each end by `succeeded` or `failed`, sleeps at most `wait_s`
    between them, and stops when `finished`. An exception out of any of these is the end of the batch: the
    driver cancels what is still in flight.
    """

    def __init__(self, batch: Batch, policy: RetryPolicy, limit: TimeLimit) -> None:
        self.results: list[Any] = [None] * len(batch.calls)
        self._calls = batch.calls
        self._policy = policy
        self._limit = limit
        self._clock = limit.clock
        self._end = limit.end(len(batch.calls), batch.in_flight)
        self._ends: dict[int, float] = {}
        self._retries: dict[int, int] = {}
        self._waiting: list[tuple[float, int]] = []
        self._unsent = 0
        self._flying = 0
        self._left = len(batch.calls)
        self._most = self._window = float(batch.in_flight)

    @property
    def finished(self) -> bool:
        """Whether every request was answered."""
        return self._left == 0

    def due(self) -> Iterator[tuple[int, Call, float]]:
        """Yield what is to be sent now: index, call, and the seconds that it may take."""
        while self._flying < int(self._window):
            now = self._clock()
            if self._waiting and self._waiting[0][0] <= now:
                _, index = heapq.heappop(self._waiting)
            elif self._unsent < len(self._calls):
                index = self._unsent
                self._unsent += 1
                self._ends[index] = min(now + self._limit.timeout_s, self._end)
            else:
                return
            remaining = self._ends[index] - now
            if remaining <= 0:
                raise DeadlineExceeded(f"not answered within {self._limit.timeout_s:g} s; raise timeout_s")
            self._flying += 1
            yield index, self._calls[index], remaining

    def wait_s(self) -> float | None:
        """Return for how long nothing can become due by itself; None when only an answer can change that."""
        if not self._waiting or self._flying >= int(self._window):
            return None
        return max(0.0, self._waiting[0][0] - self._clock())

    def succeeded(self, index: int, reply: Any) -> None:
        """Take a reply."""
        self._flying -= 1
        self._left -= 1
        self.results[index] = self._calls[index].read(reply)
        self._policy.answered()
        self._window = min(self._most, self._window + 1 / self._window)

    def failed(self, index: int, error: ConvvaeError) -> None:
        """Plan the retry of a failed request, or raise its error, with row indices as the caller counts."""
        self._flying -= 1
        call, now = self._calls[index], self._clock()
        retries = self._retries.get(index, 0)
        wait = self._policy.wait_s(error, retries, self._ends[index] - now) if call.retry else None
        if wait is None:
            raise rebase(error, call.offset)
        if isinstance(error, Overloaded):
            # As TCP does: half as many at once now, one more with every round that succeeds.
            self._window = max(1.0, self._window / 2)
        self._retries[index] = retries + 1
        heapq.heappush(self._waiting, (now + wait, index))
