"""Time limits of the calls in progress."""

import heapq
import itertools
import logging
import math
import threading
import time
from collections.abc import Callable

from convvae_service.calls.running_call import RunningCall
from convvae_service.errors import ServiceError

__all__ = ["TimeLimits"]

# Limits of calls that have ended stay in the heap until they outnumber the others by this.
_MAX_STALE = 64
# A caller may name any limit, and no thread can wait for more than 292 years.
_MAX_WAIT_S = 3600.0

_log = logging.getLogger(__name__)


class TimeLimits:
    """Interrupts calls whose time is over. One thread waits for all of them; the first limit starts it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Set up without limits. `clock` returns the time in seconds."""
        self._clock = clock
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        # The number decides between limits of one time: calls cannot be compared.
        self._limits: list[tuple[float, int, RunningCall, Callable[[], ServiceError]]] = []
        self._numbers = itertools.count()
        self._max_limits = _MAX_STALE
        self._thread: threading.Thread | None = None
        # The thread sleeps until then. Each wake-up costs as much as a small call.
        self._wakes_at_s = -math.inf

    def start(self) -> None:
        """Start the thread. Raises RuntimeError if the system allows no more threads."""
        with self._lock:
            self._start()

    def add(self, call: RunningCall, seconds: float, make_error: Callable[[], ServiceError]) -> None:
        """Interrupt `call` with an error when `seconds` have passed, unless it has ended."""
        limit = (self._clock() + seconds, next(self._numbers), call, make_error)
        with self._lock:
            heapq.heappush(self._limits, limit)
            if len(self._limits) > self._max_limits:
                self._limits = [other for other in self._limits if not other[2].ended]
                heapq.heapify(self._limits)
                self._max_limits = 2 * len(self._limits) + _MAX_STALE
            self._start()
            if limit[0] < self._wakes_at_s:
                self._wakes_at_s = limit[0]
                self._changed.notify()

    def _start(self) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._watch, name="time limits", daemon=True)
            thread.start()
            self._thread = thread

    def _watch(self) -> None:
        while True:
            self._interrupt_overdue()
            with self._lock:
                self._wakes_at_s = self._limits[0][0] if self._limits else math.inf
                if (left_s := self._wakes_at_s - self._clock()) > 0:
                    self._changed.wait(min(left_s, _MAX_WAIT_S))

    def _interrupt_overdue(self) -> None:
        with self._lock:
            overdue = self._take_overdue()
        for call, make_error in overdue:
            try:
                call.interrupt(make_error())
            except Exception:  # noqa: BLE001 - the other calls have their limits too
                _log.exception("internal error: a call could not be interrupted")

    def _take_overdue(self) -> list[tuple[RunningCall, Callable[[], ServiceError]]]:
        overdue = []
        now_s = self._clock()
        # Limits of ended calls stay: to wait for the next one, the thread would wake up once more.
        while self._limits and self._limits[0][0] <= now_s:
            _, _, call, make_error = heapq.heappop(self._limits)
            if not call.ended:
                overdue.append((call, make_error))
        return overdue
