"""A watchdog: it notices a batch or a file that does not end, and a front or event loop that is blocked."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from convvae_service.batching.batcher import RunningBatch
from convvae_service.observability.logs import facts

__all__ = ["PARTS", "Watchdog"]

# The parts that can be stuck: their names in the metrics and in the log.
PARTS = {
    "lane": "a lane",
    "front": "the front",
    "worker": "a worker",
    "event_loop": "the event loop",
}
_MAX_INTERVAL_S = 1.0

_log = logging.getLogger(__name__)


class Watchdog:
    """Reports the server as not alive while a part of it is stuck, and as alive when the part moves again.

    A task on the event loop checks the lanes, the front and the workers. A thread checks the event loop, for
    the log, the metrics and `stuck`: a blocked loop cannot answer health checks. After a check that was late,
    the server is reported as not alive until the next check in time.
    """

    def __init__(
        self,
        *,
        timeout_s: float,
        runs: Callable[[], Iterable[RunningBatch]],
        front_busy_since_s: Callable[[], float | None] = lambda: None,
        decoding_since_s: Callable[[], float | None] = lambda: None,
        set_alive: Callable[[bool], None],
        on_change: Callable[[str, bool], None] = lambda *_: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Set up the watchdog; `run` starts it.

        Args:
            timeout_s: Seconds after which a batch, an image file, or a pass of the front or the event loop
                counts as stuck.
            runs: Returns the batches that the lanes run now, with start times by `clock`.
            front_busy_since_s: Returns the time, by `clock`, at which the front has read the calls that it
                starts now; None if it waits for calls.
            decoding_since_s: Returns the time, by `clock`, at which the oldest work on image files that still
                runs has begun; None if there is none.
            set_alive: Called after each check on the event loop, with whether all parts move.
            on_change: Called when a part gets stuck and when it moves again, with its name in `PARTS`. The
                call may come from another thread.
            clock: Returns the time in seconds.
        """
        self._timeout_s = timeout_s
        self._runs = runs
        self._front_busy_since_s = front_busy_since_s
        self._decoding_since_s = decoding_since_s
        self._set_alive = set_alive
        self._on_change = on_change
        self._clock = clock
        self._beat_s = clock()
        self._stuck = dict.fromkeys(PARTS, False)
        self._lock = threading.Lock()
        self._stop = threading.Event()

    @property
    def interval_s(self) -> float:
        """Seconds between two checks, and so the maximum delay after `timeout_s`."""
        return min(_MAX_INTERVAL_S, self._timeout_s / 4)

    @property
    def stuck(self) -> bool:
        """Whether a part is stuck. Any thread may ask, also while the event loop is blocked."""
        return any(self._stuck.values())

    async def run(self) -> None:
        """Watch until cancelled."""
        self._beat_s = self._clock()
        # A daemon thread does not keep the process alive.
        threading.Thread(target=self._watch_loop, name="watchdog", daemon=True).start()
        try:
            while True:
                self.check_parts()
                await asyncio.sleep(self.interval_s)
        finally:
            self._stop.set()

    def check_parts(self) -> None:
        """Check all parts but the event loop, and note that it runs. Call this on it, at intervals."""
        now_s = self._clock()
        late = now_s - self._beat_s > self._timeout_s
        self._beat_s = now_s
        self._set_stuck("event_loop", late)
        front = self._check_since("front", self._front_busy_since_s(), now_s)
        worker = self._check_since("worker", self._decoding_since_s(), now_s)
        moving = [self._check_lanes(now_s), front, worker, not late]
        self._set_alive(all(moving))

    def check_loop(self) -> None:
        """Check that the event loop runs. Call this from another thread, at intervals."""
        late_s = self._clock() - self._beat_s
        if late_s > self._timeout_s:
            self._set_stuck("event_loop", True, seconds=round(late_s, 3))

    def _check_lanes(self, now_s: float) -> bool:
        """Return whether every lane moves."""
        overdue = [run for run in self._runs() if now_s - run.started_s > self._timeout_s]
        if not overdue:
            self._set_stuck("lane", False)
            return True
        oldest = min(overdue, key=lambda run: run.started_s)
        seconds = round(now_s - oldest.started_s, 3)
        self._set_stuck("lane", True, stage=oldest.stage, rows=oldest.rows, seconds=seconds)
        return False

    def _check_since(self, part: str, busy_since_s: float | None, now_s: float) -> bool:
        """Return whether a part moves, by the time since which it has been busy; None if it is not."""
        busy_s = 0.0 if busy_since_s is None else now_s - busy_since_s
        if busy_s <= self._timeout_s:
            self._set_stuck(part, False)
            return True
        self._set_stuck(part, True, seconds=round(busy_s, 3))
        return False

    def _watch_loop(self) -> None:
        while not self._stop.wait(self.interval_s):
            self.check_loop()

    def _set_stuck(self, part: str, stuck: bool, **details: Any) -> None:
        with self._lock:
            if self._stuck[part] is stuck:
                return
            self._stuck[part] = stuck
            # Inside the lock: with two threads, the later change must be reported last.
            self._on_change(part, stuck)
        if stuck:
            _log.error(f"{PARTS[part]} is stuck", extra=facts(timeout_s=self._timeout_s, **details))
        else:
            _log.warning(f"{PARTS[part]} moves again")
