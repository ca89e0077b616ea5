"""Callers of the native front that have sent a part of a message, and then nothing.

The front holds such a part until the connection ends, and tells nobody. The memory of the process shows that
there are parts, and the system shows which connections are silent.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Set
from contextlib import suppress

from convvae_service.server.hang_up import hang_up
from convvae_service.server.process_memory import resident_bytes

__all__ = ["SilentCallers"]

_INTERVAL_S = 0.5
# Memory that nothing explains, from which on connections are looked at.
_MIN_UNEXPLAINED_BYTES = 32 << 20
# A connection that has sent less holds no large part, and one that sends less than this is silent: pings.
_MIN_SENT_BYTES = 64 << 10
_MAX_SILENT_BYTES = 1 << 10


class SilentCallers:
    """Closes connections that are silent for too long, while the process has memory that nothing explains.

    gRPC's clients connect again when they make the next call. Connections with a call that runs are left
    alone.

    Args:
        at_most_s: Maximum seconds of silence.
        sent: Returns the bytes that each peer has sent on its open connection.
        explained_bytes: Returns the bytes that calls and files hold.
        busy: Returns the peers of the calls that run.
        resident: Returns the bytes of memory of the process.
        close: Closes the connections of peers.
    """

    def __init__(
        self,
        *,
        at_most_s: float,
        sent: Callable[[], Counter[str]],
        explained_bytes: Callable[[], int],
        busy: Callable[[], Set[str]],
        resident: Callable[[], int] = resident_bytes,
        close: Callable[[Set[str]], None] = hang_up,
    ) -> None:
        self._at_most_s = at_most_s
        self._sent = sent
        self._explained_bytes = explained_bytes
        self._busy = busy
        self._resident = resident
        self._close = close
        self._own_bytes = resident() - explained_bytes()
        # Since when each peer is silent, and what it had sent then.
        self._silent: dict[str, tuple[float, int]] = {}

    async def run(self) -> None:
        """Watch until this is cancelled."""
        while True:
            await asyncio.sleep(_INTERVAL_S)
            # The process may be unable to open another file for a moment.
            with suppress(OSError):
                self.check(time.monotonic())

    def check(self, now_s: float) -> None:
        """Look once."""
        own_bytes = self._resident() - self._explained_bytes()
        if own_bytes < self._own_bytes + _MIN_UNEXPLAINED_BYTES:
            self._own_bytes = min(self._own_bytes, own_bytes)
            self._silent.clear()
            return
        busy = self._busy()
        sent = {
            peer: num_bytes
            for peer, num_bytes in self._sent().items()
            if num_bytes >= _MIN_SENT_BYTES and peer not in busy
        }
        if not sent:
            # Nobody has sent it: it is the process itself.
            self._own_bytes = own_bytes
        before, self._silent = self._silent, {}
        for peer, num_bytes in sent.items():
            since = before.get(peer)
            is_silent = since is not None and num_bytes < since[1] + _MAX_SILENT_BYTES
            self._silent[peer] = since if since is not None and is_silent else (now_s, num_bytes)
        late = {peer for peer, (since_s, _) in self._silent.items() if now_s - since_s >= self._at_most_s}
        if late:
            self._close(late)
