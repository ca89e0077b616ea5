"""The threads that decode image files. Large files wait for room, and small ones pass them."""

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from functools import partial
from threading import Lock, get_ident

from convvae_service.images.child import DecodingChild

__all__ = ["DecodingThreads"]

Turn = Callable[[], None]


@dataclass(frozen=True, slots=True)
class _Large:
    """A turn with a large file: it waits for room, or runs."""

    turn: Turn
    num_bytes: int
    end: "Future[None]" = field(default_factory=Future)


class DecodingThreads:
    """Runs turns in the threads of an executor, with limits on those that decode large files.

    Large files are decoded in the order in which they come, if a thread and memory are free for them. If
    the executor has more threads than `max_large`, small files never wait for large ones.

    Attributes:
        child: The process that decodes large WebP files.
    """

    def __init__(
        self,
        executor: Executor,
        *,
        max_large: int,
        max_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Use the threads of an executor.

        Args:
            executor: The executor. If it is shut down, further turns raise `RuntimeError`.
            max_large: Maximum number of large files that are decoded at the same time, at least 1.
            max_bytes: Maximum bytes that they hold together. A file that needs more is decoded alone.
            clock: Returns the time in seconds.
        """
        self._executor = executor
        self.child = DecodingChild()
        self._max_large = max_large
        self._max_bytes = max_bytes
        self._clock = clock
        self._lock = Lock()
        self._waiting: deque[_Large] = deque()
        self._running = 0
        self._held_bytes = 0
        # By thread. One operation on a dict needs no lock.
        self._started_s: dict[int, float] = {}

    @property
    def held_bytes(self) -> int:
        """The bytes that the large files that are decoded now hold at their peaks."""
        return self._held_bytes

    @property
    def busy_since_s(self) -> float | None:
        """The time, by `clock`, at which the oldest turn that still runs has begun; None if there is none."""
        return min(list(self._started_s.values()), default=None)

    def submit(self, turn: Turn) -> "Future[None]":
        """Run a turn when a thread is free, and return a future of its end.

        Raises:
            RuntimeError: The executor is shut down.
        """
        return self._executor.submit(self._run, turn)

    def submit_large(self, turn: Turn, num_bytes: int) -> "Future[None]":
        """Run a turn that decodes a large file when there is room for it.

        Args:
            turn: The turn.
            num_bytes: The bytes that it holds at its peak.

        Returns:
            A future of its end. It is cancelled if the executor is shut down before the turn begins.
        """
        large = _Large(turn, num_bytes)
        with self._lock:
            self._waiting.append(large)
        self._start_waiting()
        return large.end

    def _start_waiting(self) -> None:
        """Start the large files that have room."""
        while (large := self._take_with_room()) is not None:
            try:
                started = self._executor.submit(self._run, large.turn)
            except RuntimeError:  # the executor is shut down
                self._release(large)
                large.end.cancel()
            else:
                started.add_done_callback(partial(self._end, large))

    def _take_with_room(self) -> _Large | None:
        with self._lock:
            if not self._waiting or self._running >= self._max_large:
                return None
            if self._running and self._held_bytes + self._waiting[0].num_bytes > self._max_bytes:
                return None
            large = self._waiting.popleft()
            self._running += 1
            self._held_bytes += large.num_bytes
            return large

    def _end(self, large: _Large, started: "Future[None]") -> None:
        self._release(large)
        if started.cancelled():
            large.end.cancel()
        else:
            large.end.set_result(None)
        self._start_waiting()

    def _release(self, large: _Large) -> None:
        with self._lock:
            self._running -= 1
            self._held_bytes -= large.num_bytes

    def _run(self, turn: Turn) -> None:
        thread = get_ident()
        self._started_s[thread] = self._clock()
        try:
            turn()
        finally:
            del self._started_s[thread]
