"""A limit on the messages that gRPC has received in part.

gRPC hands a message over when it is whole. Until then it is in memory of gRPC that Python cannot see. Callers
that send parts of large messages, and then nothing, would fill it. What they have sent is the part of the
heap that nothing else explains. While gRPC joins the parts of a message, it holds them up to three times.
"""

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence, Set

from convvae_service.batching.pending_bytes import PendingBytes
from convvae_service.errors import Overloaded
from convvae_service.server.crowd import Crowd
from convvae_service.server.hang_up import hang_up
from convvae_service.server.process_memory import heap_bytes
from convvae_service.server.reads import Reads, WaitingRead

__all__ = ["PartialMessages"]

# A caller on this machine sends about 20 MB in this time.
_INTERVAL_S = 0.02
# A message that is there already is read at once.
_MIN_WAIT_S = 0.05
# Intervals without such a read after which the heap is taken as that of the process itself.
_MIN_QUIET = 50
_RETRY_DELAY_S = 1.0
# A caller that has sent less on its connection holds no large part of a message.
_MIN_SENT_BYTES = 64 << 10
# Intervals below half of the limit after which new callers need not wait.
_MIN_CALM = 5
# Intervals above it after which those that connected meanwhile need not wait either.
_MAX_CROWDED = 50
# From this part of the limit above it, connections are closed.
_CLOSING_PART = 16

_log = logging.getLogger(__name__)


class PartialMessages:
    """Ends the reads that have waited longest, while calls and messages in part hold too many bytes together.

    From half of the limit, callers that connect wait before their reads begin. Above the limit, reads end
    with a status. That takes the event loop, which one large message blocks for a tenth of a second. From a
    sixteenth above it, the connections of callers are closed at once. Callers that have sent little are left
    alone.

    Args:
        reads: The reads that wait for messages.
        pending: The account of the messages that are whole, and of all else that calls hold.
        decoding_bytes: Returns the bytes that files hold while they are decoded, which have a limit of their
            own.
        max_bytes: Maximum bytes of the account, and of the messages that are not whole.
        sent: Returns the bytes that each caller has sent on its connection, as far as the system knows.
        crowd: The time in which new callers wait before their reads begin.
        heap: Returns the bytes in use on the heap of this process.
        close: Closes the connections of callers, given their addresses.
    """

    def __init__(
        self,
        reads: Sequence[Reads],
        pending: PendingBytes,
        *,
        decoding_bytes: Callable[[], int],
        max_bytes: int,
        sent: Callable[[], Mapping[str, int]],
        crowd: Crowd,
        heap: Callable[[], int] = heap_bytes,
        close: Callable[[Set[str]], None] = hang_up,
    ) -> None:
        self._reads = reads
        self._pending = pending
        self._decoding_bytes = decoding_bytes
        self._max_bytes = max_bytes
        self._sent = sent
        self._crowd = crowd
        # Intervals below and above half of the limit.
        self._num_calm = _MIN_CALM
        self._num_crowded = 0
        self._heap = heap
        self._close = close
        # Bytes of the process itself: the heap while calls hold nothing, or in a second without late reads.
        self._own_bytes = 0
        self._quiet_bytes: tuple[int, ...] = ()
        self._stopped = False

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to watch, in a thread. The reads belong to `loop`."""
        self._own_bytes = self._heap() - self._pending.num_bytes - self._decoding_bytes()
        threading.Thread(target=self._watch, args=(loop,), name="partial messages", daemon=True).start()

    def stop(self) -> None:
        """End the watch."""
        self._stopped = True

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        while not self._stopped:
            try:
                self.check(loop)
            except Exception:  # noqa: BLE001 - nobody else watches
                if not loop.is_closed():
                    _log.exception(
                        "internal error: messages that arrive in part are not watched for a moment"
                    )
            time.sleep(_INTERVAL_S)

    def check(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look once, and end as many reads as hold the bytes above the limit, the oldest first."""
        pending_bytes = self._pending.num_bytes
        known_bytes = pending_bytes + self._decoding_bytes()
        num_bytes = self._heap() - known_bytes
        until_s = loop.time() - _MIN_WAIT_S
        late = [read for reads in self._reads for read in reads.waiting if read.began_s < until_s]
        late.sort(key=lambda read: read.began_s)
        self._note_own_bytes(num_bytes, is_exact=known_bytes == 0, is_quiet=not late)
        partial_bytes = num_bytes - self._own_bytes
        excess = partial_bytes + pending_bytes - self._max_bytes
        if partial_bytes <= 0 or excess <= -self._max_bytes // 2:
            self._num_calm += 1
            if self._num_calm == _MIN_CALM:
                loop.call_soon_threadsafe(self._crowd.disperse)
            return
        begins = self._num_calm >= _MIN_CALM or self._num_crowded == _MAX_CROWDED
        # A look at all connections takes some milliseconds.
        sent = self._sent() if begins or excess > 0 else {}
        if begins:
            self._num_crowded = 0
            loop.call_soon_threadsafe(self._crowd.gather, set(sent))
        self._num_calm = 0
        self._num_crowded += 1
        if excess <= 0:
            return
        late = [read for read in late if sent.get(read.peer, _MIN_SENT_BYTES) >= _MIN_SENT_BYTES]
        chosen = late[: math.ceil(len(late) * excess / partial_bytes)]
        if chosen and excess > self._max_bytes // _CLOSING_PART:
            self._close({read.peer for read in chosen})
        elif chosen:
            loop.call_soon_threadsafe(_refuse, chosen)

    def _note_own_bytes(self, num_bytes: int, *, is_exact: bool, is_quiet: bool) -> None:
        # Calls and files count with the most that they can hold: beside them, the rest seems too small.
        if is_exact:
            self._own_bytes = min(self._own_bytes, num_bytes)
        self._quiet_bytes = (*self._quiet_bytes, num_bytes) if is_quiet else ()
        if len(self._quiet_bytes) == _MIN_QUIET:
            # The lowest: in the last moments, reads may have begun.
            self._own_bytes = max(self._own_bytes, min(self._quiet_bytes))
            self._quiet_bytes = ()


def _refuse(late: Sequence[WaitingRead]) -> None:
    for read in late:
        read.reads.end(read.task, _crowded)


def _crowded() -> Overloaded:
    return Overloaded(
        "the message did not arrive in time: the server holds parts of too many messages; retry after the"
        " stated delay",
        retry_delay_s=_RETRY_DELAY_S,
    )
