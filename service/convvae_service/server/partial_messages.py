"""A limit on the messages that gRPC has received in part.

gRPC hands a message over when it is whole. Until then it is in memory of gRPC that Python cannot see. Callers
that send parts of large messages, and then nothing, would fill it. What they have sent is the part of the
heap that nothing else explains.
"""

import asyncio
import math
from collections.abc import Callable, Sequence

from convvae_service.batching.pending_bytes import PendingBytes
from convvae_service.errors import Overloaded
from convvae_service.server.memory import heap_bytes
from convvae_service.server.reads import Reads

__all__ = ["PartialMessages"]

# A caller on this machine sends about 50 MB in this time.
_INTERVAL_S = 0.05
_RETRY_DELAY_S = 1.0


class PartialMessages:
    """Ends the reads that have waited longest, while the messages that are not whole hold too many bytes.

    Args:
        reads: The reads that wait for messages.
        pending: The account of the messages that are whole, and of all else that calls hold.
        max_bytes: Maximum bytes of all messages that are not whole.
        heap: Returns the bytes in use on the heap of this process.
    """

    def __init__(
        self,
        reads: Sequence[Reads],
        pending: PendingBytes,
        *,
        max_bytes: int,
        heap: Callable[[], int] = heap_bytes,
    ) -> None:
        self._reads = reads
        self._pending = pending
        self._max_bytes = max_bytes
        self._heap = heap
        # Bytes of the process itself: the heap while no read waits, without what calls hold.
        self._own_bytes = 0

    async def run(self) -> None:
        """Watch the reads until this is cancelled."""
        loop = asyncio.get_running_loop()
        self._own_bytes = self._heap() - self._pending.num_bytes
        while True:
            await asyncio.sleep(_INTERVAL_S)
            self.check(loop.time())

    def check(self, now_s: float) -> None:
        """Look once, and end as many reads as hold the bytes above the limit, the oldest first."""
        num_bytes = self._heap() - self._pending.num_bytes
        waiting = sorted(
            (
                (began_s, number, task)
                for number, reads in enumerate(self._reads)
                for began_s, task in reads.waiting
            ),
            key=lambda read: read[0],
        )
        # A message that is there already is read at once.
        if not waiting or waiting[0][0] > now_s - _INTERVAL_S:
            self._own_bytes = num_bytes
            return
        partial_bytes = num_bytes - self._own_bytes
        if (excess := partial_bytes - self._max_bytes) <= 0:
            return
        for _, number, task in waiting[: math.ceil(len(waiting) * excess / partial_bytes)]:
            self._reads[number].end(task, _crowded)


def _crowded() -> Overloaded:
    return Overloaded(
        "the message did not arrive in time: the server holds parts of too many messages; retry after the"
        " stated delay",
        retry_delay_s=_RETRY_DELAY_S,
    )
