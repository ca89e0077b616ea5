"""Turns of large messages, with pauses between them in which the event loop has time for all others.

gRPC copies a message on the event loop when its read ends, about 1 ms for each MB. Nothing tells its size
before. Several large ones that arrive together would hold up all other calls for as long as all of them take.
A large message takes time to arrive, so reads that end soon never wait for a turn.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable

__all__ = ["MessageTurns"]

# A read that takes no longer has no large message, and a copy that takes no longer holds nobody up.
_SHORT_READ_S = 0.02
_SHORT_COPY_S = 0.005
# A small call takes less than this. Where all takes longer, the pause is this part of the copy.
_MIN_PAUSE_S = 0.01
_PAUSE_PART = 4
_MAX_PAUSE_S = 0.1
# Time for the event loop to begin a turn.
_BEGIN_S = 0.001


class MessageTurns:
    """The line of reads whose messages have arrived and are not copied yet. Use it on one event loop.

    After a long copy the line stands still for a quarter of the time that it took, or 10 ms if that is more.
    A longer pause would let more messages arrive meanwhile, which take memory.

    Args:
        clock: Returns the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._free_s = 0.0
        self._line: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def join(self, began_s: float) -> "asyncio.Future[None] | None":
        """Return the turn of a read that began at this time, or None if it needs not wait."""
        now_s = self.clock()
        if (now_s >= self._free_s and not self._line) or now_s - began_s < _SHORT_READ_S:
            return None
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append(turn)
        if self._timer is None:
            self._wake_in(self._free_s - now_s)
        return turn

    def end(self, copy_began_s: float) -> None:
        """Note the end of a copy that began at this time."""
        now_s = self.clock()
        took_s = now_s - copy_began_s
        if took_s > _SHORT_COPY_S:
            self._free_s = now_s + min(max(_MIN_PAUSE_S, took_s / _PAUSE_PART), _MAX_PAUSE_S)

    def _wake_in(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(max(seconds, _BEGIN_S), self._wake)

    def _wake(self) -> None:
        self._timer = None
        left_s = self._free_s - self.clock()
        if left_s <= 0:
            while self._line:
                turn = self._line.popleft()
                # The caller may have left.
                if not turn.done():
                    turn.set_result(None)
                    break
        if self._line:
            self._wake_in(left_s)
