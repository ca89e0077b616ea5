"""Replies that gRPC keeps because their callers do not read them."""

import asyncio
from collections.abc import Callable, Hashable, Set

from convvae_service.batching.pending_bytes import PendingBytes
from convvae_service.server.hang_up import hang_up

__all__ = ["UnsentReplies"]

_INTERVAL_S = 0.1
# While calls hold this part of what they may, a caller must read a reply within this time.
_CROWDED_PART = 0.5
_CROWDED_S = 1.0
# A connection may have a thousand such replies: one end frees them all.
_MAX_ENDS = 10


class UnsentReplies:
    """Closes the connections of callers that read their replies too slowly. Use it on one event loop.

    gRPC cannot take back a reply that it has begun to send: only the end of the connection frees it.

    Args:
        pending: The account of what calls hold. Replies count in it until they are sent.
        at_most_s: Maximum seconds for a caller to read one reply. It is one second while calls hold more than
            half of what they may.
        end: Closes the connections of callers, given their addresses.
    """

    def __init__(
        self, pending: PendingBytes, *, at_most_s: float, end: Callable[[Set[str]], None] = hang_up
    ) -> None:
        self._pending = pending
        self._at_most_s = at_most_s
        self._end = end
        # The time at which each began to be sent, and its caller, in order.
        self._unsent: dict[Hashable, tuple[float, str]] = {}

    def add(self, reply: Hashable, peer: str) -> None:
        """Note that gRPC begins to send a reply. `peer` is the address of its caller."""
        self._unsent[reply] = (asyncio.get_running_loop().time(), peer)

    def discard(self, reply: Hashable) -> None:
        """Note that a reply is sent, or that its caller has left."""
        self._unsent.pop(reply, None)

    @property
    def has_unix_callers(self) -> bool:
        """Whether a reply is being sent through a Unix socket."""
        return any(peer.startswith("unix:") for _, peer in self._unsent.values())

    async def run(self) -> None:
        """Watch the replies until this is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_INTERVAL_S)
            self.check(loop.time())

    def check(self, now_s: float) -> None:
        """Look once, and close the connections of the replies that have waited too long, the oldest first."""
        is_crowded = self._pending.num_bytes > _CROWDED_PART * self._pending.max_bytes
        at_most_s = min(_CROWDED_S, self._at_most_s) if is_crowded else self._at_most_s
        late: list[tuple[Hashable, str]] = []
        for reply, (began_s, peer) in self._unsent.items():
            if now_s - began_s <= at_most_s or len(late) >= _MAX_ENDS:
                break
            late.append((reply, peer))
        peers = set()
        for reply, peer in late:
            del self._unsent[reply]
            peers.add(peer)
        if peers:
            self._end(peers)
