"""Callers wait before they send large messages, while messages in part hold much memory.

A caller whose connection was closed comes again at once, on a new connection, with the same message. gRPC
receives no more of a message than 64 KiB before a read of it begins.
"""

import asyncio
from collections.abc import Set

__all__ = ["Crowd"]

# If the memory does not come back, nobody waits longer.
_MAX_WAIT_S = 1.0


class Crowd:
    """A time in which only callers that were connected at its beginning may begin to read.

    Use it on one event loop.
    """

    def __init__(self) -> None:
        self._connected: Set[str] = frozenset()
        self._over: asyncio.Future[None] | None = None

    @property
    def is_there(self) -> bool:
        """Whether the time has begun and is not over."""
        return self._over is not None

    def gather(self, connected: Set[str]) -> None:
        """Begin the time, or begin it again: callers that wait may read.

        Args:
            connected: The addresses of the callers that are connected, as gRPC writes them.
        """
        self.disperse()
        self._connected = connected
        self._over = asyncio.get_running_loop().create_future()

    def disperse(self) -> None:
        """End the time, if it has begun."""
        if self._over is not None:
            self._over.set_result(None)
            self._over = None

    async def let_in(self, peer: str) -> None:
        """Wait until a caller may begin to read: until the time is over or begins again, at most 1 s.

        Callers on a Unix socket do not wait: the system does not say which of them are connected.
        """
        if self._over is not None and peer not in self._connected and not peer.startswith("unix"):
            await asyncio.wait((self._over,), timeout=_MAX_WAIT_S)
