"""Reads from callers, with a time limit that costs almost nothing.

`asyncio.timeout` makes a timer for each read, which takes longer than the read itself. Here one timer serves
all: each read has the same limit, so the oldest is always the first that is late.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from convvae_service.errors import ServiceError
from convvae_service.server.crowd import Crowd
from convvae_service.server.lasting_read import lasting
from convvae_service.server.message_turns import MessageTurns

__all__ = ["Reads", "WaitingRead"]

T = TypeVar("T")
_Task = asyncio.Task[object]


@dataclass(frozen=True, eq=False, slots=True)
class WaitingRead:
    """A read that waits now.

    Attributes:
        began_s: When it began, by the clock of its event loop.
        reads: The reads that it is one of.
        task: The task that reads.
        peer: The address of the caller.
    """

    began_s: float
    reads: "Reads"
    task: "_Task"
    peer: str


class Reads:
    """The reads that wait now for messages of callers. Use it on one event loop.

    Args:
        at_most_s: Maximum seconds for one read.
        late: Makes the error of a read that took longer.
        stopped: Makes the error of a read that would wait when the server stops.
        turns: The turns of large messages, on all reads of the event loop.
        crowd: The time in which new callers wait, likewise.
    """

    def __init__(
        self,
        *,
        at_most_s: float,
        late: Callable[[], ServiceError],
        stopped: Callable[[], ServiceError],
        turns: MessageTurns,
        crowd: Crowd,
    ) -> None:
        self._at_most_s = at_most_s
        self._late = late
        self._stopped_error = stopped
        self._turns = turns
        self._crowd = crowd
        # In the order in which they began. A task has one read at a time.
        self._waiting: dict[_Task, WaitingRead] = {}
        # Why reads end that have not heard of it yet.
        self._errors: dict[_Task, ServiceError] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False

    async def run(self, read: Callable[[], Awaitable[T]], peer: str) -> T:
        """Return the result of `read()`. `peer` is the address of the caller.

        Raises:
            ServiceError: It took too long, the server stops, or `end` has ended it.
        """
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        self._waiting[task] = WaitingRead(loop.time(), self, task, peer)
        if self._stopped:
            # In a moment, so that a request which is there already is read.
            loop.call_soon(self.end, task, self._stopped_error)
        elif self._timer is None:
            self._timer = loop.call_later(self._at_most_s, self._end_late)
        try:
            if self._crowd.is_there:
                await self._crowd.let_in(peer)
            return await lasting(read(), self._turns)
        except asyncio.CancelledError:
            error = self._errors.get(task)
            # The caller may have left at the same moment.
            if error is None or task.uncancel() > 0:
                raise
            try:
                raise error from None
            finally:
                # The error's traceback has this frame.
                del error
        finally:
            del self._waiting[task]
            self._errors.pop(task, None)
            del task

    @property
    def waiting(self) -> "list[WaitingRead]":
        """The reads that wait and that nobody has ended, in the order in which they began.

        Other threads may ask too.
        """
        return [read for read in list(self._waiting.values()) if read.task not in self._errors]

    def end(self, task: "_Task", make_error: Callable[[], ServiceError]) -> None:
        """End the read of a task with an error, if it still waits."""
        if task in self._waiting and task not in self._errors:
            self._errors[task] = make_error()
            task.cancel()

    def stop(self) -> None:
        """End, now and from now on, every read that would wait."""
        self._stopped = True
        for task in self._waiting:
            self.end(task, self._stopped_error)

    def _end_late(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        for task, read in self._waiting.items():
            if (left_s := read.began_s + self._at_most_s - loop.time()) > 0:
                self._timer = loop.call_later(left_s, self._end_late)
                return
            self.end(task, self._late)
