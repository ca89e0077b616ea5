"""Reads from callers, with a time limit that costs almost nothing.

`asyncio.timeout` makes a timer for each read, which takes longer than the read itself. Here one timer serves
all: each read has the same limit, so the oldest is always the first that is late.
"""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from convvae_service.calls.runner import CallRunner
from convvae_service.errors import DeadlineExceeded

__all__ = ["Reads"]

T = TypeVar("T")


class Reads:
    """The reads that wait now for requests of callers. Use it on one event loop.

    Args:
        runner: Knows why the server takes no calls when it stops.
        at_most_s: Maximum seconds for one read; None for no limit.
    """

    def __init__(self, runner: CallRunner, *, at_most_s: float | None) -> None:
        self._runner = runner
        self._at_most_s = at_most_s
        # The time at which each read began, in order. A task has one read at a time.
        self._waiting: dict[asyncio.Task[object], float] = {}
        self._late: set[asyncio.Task[object]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False

    async def run(self, read: Awaitable[T]) -> T:
        """Return the result of `read`.

        Raises:
            DeadlineExceeded: It took too long.
            NotReady: The server stops.
        """
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        self._waiting[task] = loop.time()
        if self._stopped:
            # In a moment, so that a request which is there already is read.
            loop.call_soon(self._cancel, task)
        elif self._timer is None and self._at_most_s is not None:
            self._timer = loop.call_later(self._at_most_s, self._cancel_late)
        try:
            return await read
        except asyncio.CancelledError:
            # The caller may have left at the same moment.
            if task not in self._late or task.uncancel() > 0:
                raise
            if self._stopped:
                raise self._runner.not_ready() from None
            raise DeadlineExceeded(
                f"the request of the call did not arrive within the server's limit of {self._at_most_s:g} s"
            ) from None
        finally:
            del self._waiting[task]
            self._late.discard(task)

    def stop(self) -> None:
        """End, now and from now on, every read that would wait."""
        self._stopped = True
        for task in self._waiting:
            self._cancel(task)

    def _cancel(self, task: "asyncio.Task[object]") -> None:
        if task in self._waiting and task not in self._late:
            self._late.add(task)
            task.cancel()

    def _cancel_late(self) -> None:
        assert self._at_most_s is not None
        self._timer = None
        loop = asyncio.get_running_loop()
        for task, began_s in self._waiting.items():
            if (left_s := began_s + self._at_most_s - loop.time()) > 0:
                self._timer = loop.call_later(left_s, self._cancel_late)
                return
            self._cancel(task)
