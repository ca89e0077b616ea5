"""A watchdog: notices a lane whose run does not end, and an event loop that does not come round."""

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from convvae_service.batching.batcher import RunningBatch
from convvae_service.observability.logs import facts

__all__ = ["PARTS", "Watchdog"]

# What can be stuck, as metrics call it, and as the log does.
PARTS = {"lane": "a lane", "event_loop": "the event loop"}
_MAX_INTERVAL_S = 1.0

_log = logging.getLogger(__name__)


class Watchdog:
    """Reports the server as not alive while a part of it is stuck, and as alive when it moves again.

    The event loop looks at the lanes. A thread looks at the event loop, for the log and the metrics: while
    the loop is stuck, health cannot answer anyone. When it comes round late, health is red until it is next
    in time.
    """

    def __init__(
        self,
        *,
        timeout_s: float,
        runs: Callable[[], Iterable[RunningBatch]],
        set_alive: Callable[[bool], Awaitable[None]],
        on_change: Callable[[str, bool], None] = lambda *_: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take up nothing yet: `run` does.

        Args:
            timeout_s: Seconds after which a run, or a turn of the event loop, counts as stuck.
            runs: What the lanes compute now, with starts by `clock`.
            set_alive: Told after each look from the event loop whether all parts move.
            on_change: Told of each part, by its name in `PARTS`, when it sticks and when it moves again; from
                any thread.
            clock: Seconds.
        """
        self._timeout_s = timeout_s
        self._runs = runs
        self._set_alive = set_alive
        self._on_change = on_change
        self._clock = clock
        self._beat_s = clock()
        self._stuck = dict.fromkeys(PARTS, False)
        self._lock = threading.Lock()
        self._stop = threading.Event()

    @property
    def interval_s(self) -> float:
        """Seconds between two looks: a stuck part is noticed at most so much later than `timeout_s`."""
        return min(_MAX_INTERVAL_S, self._timeout_s / 4)

    async def run(self) -> None:
        """Watch until cancelled."""
        self._beat_s = self._clock()
        # A daemon: it must not keep a process that ends for want of anything else.
        threading.Thread(target=self._watch_loop, name="watchdog", daemon=True).start()
        try:
            while True:
                await self.look_at_lanes()
                await asyncio.sleep(self.interval_s)
        finally:
            self._stop.set()

    async def look_at_lanes(self) -> None:
        """Look at the lanes, and show that the event loop comes round; to be called on it, at intervals."""
        now_s = self._clock()
        late = now_s - self._beat_s > self._timeout_s
        self._beat_s = now_s
        self._turn("event_loop", late)
        overdue = [run for run in self._runs() if now_s - run.started_s > self._timeout_s]
        if overdue:
            oldest = min(overdue, key=lambda run: run.started_s)
            seconds = round(now_s - oldest.started_s, 3)
            self._turn("lane", True, stage=oldest.stage, rows=oldest.rows, seconds=seconds)
        else:
            self._turn("lane", False)
        await self._set_alive(not overdue and not late)

    def look_at_loop(self) -> None:
        """Look whether the event loop still comes round; to be called from another thread, at intervals."""
        late_s = self._clock() - self._beat_s
        if late_s > self._timeout_s:
            self._turn("event_loop", True, seconds=round(late_s, 3))

    def _watch_loop(self) -> None:
        while not self._stop.wait(self.interval_s):
            self.look_at_loop()

    def _turn(self, part: str, stuck: bool, **details: Any) -> None:
        with self._lock:
            if self._stuck[part] is stuck:
                return
            self._stuck[part] = stuck
            # Inside the lock, so that of two threads the later one has the last word.
            self._on_change(part, stuck)
        if stuck:
            _log.error(f"{PARTS[part]} is stuck", extra=facts(timeout_s=self._timeout_s, **details))
        else:
            _log.warning(f"{PARTS[part]} moves again")
