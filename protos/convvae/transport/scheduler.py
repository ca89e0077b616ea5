"""The state of a batch: its requests' order, number in flight, retries and deadlines. It sends nothing."""

import heapq
import time
from collections.abc import Callable, Iterator
from typing import Any

from convvae.calls.exchanges import PlannedRequest, RequestBatch
from convvae.errors import ConvvaeError, DeadlineExceeded, Overloaded
from convvae.transport.retry import RetryPolicy
from convvae.transport.status import rebase

__all__ = ["GRACE_S", "Clock", "RequestScheduler", "TimeLimit"]

# gRPC reports the end of a request by its deadline. Without any report, the batch ends this much later.
GRACE_S = 0.5

Clock = Callable[[], float]


class TimeLimit:
    """The time that one client call may take.

    A request and its retries may take `timeout_s` from its first attempt. The whole call, with its look-ups
    of models, may take `timeout_s` for each round of requests in flight. A call that fits in one round ends
    within `timeout_s`.
    """

    def __init__(self, timeout_s: float, *, clock: Clock = time.monotonic) -> None:
        self.timeout_s = timeout_s
        self.clock = clock
        self._start_s = clock()

    def end_s(self, requests: int = 1, in_flight: int = 1) -> float:
        """Return the clock time at which a batch of `requests` must have ended."""
        rounds = max(1, -(-requests // in_flight))
        return self._start_s + self.timeout_s * rounds

    def remaining_s(self) -> float:
        """Return the seconds that are left for one request, at least 0."""
        return max(0.0, self.end_s() - self.clock())

    def passed(self) -> DeadlineExceeded:
        """Return the error of a call that has used up its time."""
        return DeadlineExceeded(f"not answered within {self.timeout_s:g} s; raise timeout_s")


class RequestScheduler:
    """The state of one batch of requests while a client sends it.

    The client sends what `due` yields, reports each end with `succeeded` or `failed`, waits at most `wait_s`
    between two looks, and stops when `finished` is true. If one of these methods raises, the batch has failed
    and the client cancels the requests in flight.
    """

    def __init__(self, batch: RequestBatch, policy: RetryPolicy, limit: TimeLimit) -> None:
        self.results: list[Any] = [None] * len(batch.requests)
        self._requests = batch.requests
        self._policy = policy
        self._limit = limit
        self._clock = limit.clock
        self._end_s = limit.end_s(len(batch.requests), batch.in_flight)
        self._ends_s: dict[int, float] = {}
        self._retries: dict[int, int] = {}
        self._waiting: list[tuple[float, int]] = []
        self._next = 0
        self._num_in_flight = 0
        self._num_unanswered = len(batch.requests)
        self._max_window = self._window = float(batch.in_flight)

    @property
    def finished(self) -> bool:
        """Whether every request has its reply."""
        return self._num_unanswered == 0

    def due(self) -> Iterator[tuple[int, PlannedRequest, float]]:
        """Yield each request to send now: its index, the request, and the seconds that it may take.

        Raises:
            DeadlineExceeded: A request has no time left, or gRPC did not report the end of one in time.
        """
        if self._clock() >= self._end_s + GRACE_S:
            raise self._limit.passed()
        while self._num_in_flight < int(self._window):
            now_s = self._clock()
            if self._waiting and self._waiting[0][0] <= now_s:
                _, index = heapq.heappop(self._waiting)
            elif self._next < len(self._requests):
                index = self._next
                self._next += 1
                self._ends_s[index] = min(now_s + self._limit.timeout_s, self._end_s)
            else:
                return
            remaining_s = self._ends_s[index] - now_s
            if remaining_s <= 0:
                raise self._limit.passed()
            self._num_in_flight += 1
            yield index, self._requests[index], remaining_s

    def wait_s(self) -> float:
        """Return the seconds until the next retry is due, or until the batch must have ended."""
        until_s = self._end_s + GRACE_S
        if self._waiting and self._num_in_flight < int(self._window):
            until_s = min(until_s, self._waiting[0][0])
        return max(0.0, until_s - self._clock())

    def succeeded(self, index: int, reply: Any) -> None:
        """Store the reply to the request `index`."""
        self._num_in_flight -= 1
        self._num_unanswered -= 1
        self.results[index] = self._requests[index].parse(reply)
        self._policy.answered()
        self._window = min(self._max_window, self._window + 1 / self._window)

    def failed(self, index: int, error: ConvvaeError) -> None:
        """Schedule a retry of the request `index`, or raise `error` with row indices as the caller counts."""
        self._num_in_flight -= 1
        request, now_s = self._requests[index], self._clock()
        retries = self._retries.get(index, 0)
        remaining_s = self._ends_s[index] - now_s
        wait_s = self._policy.wait_s(error, retries, remaining_s) if request.retry else None
        if wait_s is None:
            raise rebase(error, request.offset)
        if isinstance(error, Overloaded):
            # As in TCP: half the window now, one more request after each round that succeeds.
            self._window = max(1.0, self._window / 2)
        self._retries[index] = retries + 1
        heapq.heappush(self._waiting, (now_s + wait_s, index))
