"""Memory of a process that serves for a long time.

Start-up objects are frozen out of the garbage collector, and freed memory goes back to the system: glibc
keeps it otherwise, and the process stays at its largest size.
"""

import asyncio
import gc
from collections.abc import Callable
from contextlib import suppress

from convvae_service.server.process_memory import heap_bytes, resident_bytes, trim

__all__ = ["freeze_startup_objects", "return_freed_memory"]

_INTERVAL_S = 0.25
# A collection under load delays calls.
_MAX_BUSY_INTERVALS = 40
# The same while the process is larger than it was: a circle of references may hold a large request.
_MAX_FULL_INTERVALS = 8
_MAX_FREE_BYTES = 32 << 20
_MIN_RETURNED_BYTES = 4 << 20


def freeze_startup_objects() -> None:
    """Take all existing objects out of the garbage collector: modules, models, the server itself.

    Without this, a collection under load searched them every 10 s and delayed all calls by 80 ms.
    """
    gc.collect()
    gc.freeze()


async def return_freed_memory(
    last_arrival_s: Callable[[], float], *, interval_s: float = _INTERVAL_S
) -> None:
    """Collect garbage and trim the heap soon after calls, until this is cancelled.

    Garbage is collected when no call has arrived for one interval, or after forty of them in which calls have
    arrived, and after eight while the process is larger by 32 MiB than at its least. The heap is trimmed
    then, and as soon as much of it is free.

    Args:
        last_arrival_s: Returns the time of the last call's arrival, by any clock.
        interval_s: Seconds between two checks.
    """
    garbage, heap = _Garbage(), _FreeHeap()
    while True:
        await asyncio.sleep(interval_s)
        # At the limit of open files, the size of the process cannot be read for a moment.
        with suppress(OSError):
            is_due = garbage.is_due(last_arrival_s())
            if is_due:
                gc.collect()
            if heap.is_large() or is_due:
                await heap.trim()


class _Garbage:
    """The time of the next collection.

    For the C library, garbage is in use. Only the size of the whole process shows that there may be much.
    """

    def __init__(self) -> None:
        self._seen_s: float | None = None
        self._busy_intervals = 0
        self._least_bytes = resident_bytes()

    def is_due(self, arrived_s: float) -> bool:
        """Return whether to collect garbage now, one interval later. The last call arrived at `arrived_s`."""
        is_quiet, self._seen_s = arrived_s == self._seen_s, arrived_s
        self._busy_intervals += not is_quiet
        now_bytes = resident_bytes()
        # Without calls, what is there is the process itself.
        is_idle = is_quiet and not self._busy_intervals
        self._least_bytes = now_bytes if is_idle else min(self._least_bytes, now_bytes)
        is_full = now_bytes > self._least_bytes + _MAX_FREE_BYTES
        at_most = _MAX_FULL_INTERVALS if is_full else _MAX_BUSY_INTERVALS
        is_due = self._busy_intervals >= at_most or (is_quiet and self._busy_intervals > 0)
        if is_due:
            self._busy_intervals = 0
        return is_due


class _FreeHeap:
    """The memory that is freed and not yet returned, above the part that cannot be returned."""

    def __init__(self) -> None:
        self._now_bytes = self._used_bytes = _kept_bytes()

    def is_large(self) -> bool:
        """Look, and return whether it is worth a trim."""
        self._now_bytes = _kept_bytes()
        self._used_bytes = min(self._used_bytes, self._now_bytes)
        return self._now_bytes > self._used_bytes + _MAX_FREE_BYTES

    async def trim(self) -> None:
        """Return it to the system."""
        # In a thread: it takes some milliseconds, and Python can go on meanwhile.
        await asyncio.to_thread(trim)
        left_bytes = _kept_bytes()
        # More may have been freed meanwhile. Only a trim that returns nothing shows what is in use.
        is_all = left_bytes > self._now_bytes - _MIN_RETURNED_BYTES
        self._used_bytes = left_bytes if is_all else min(self._used_bytes, left_bytes)


def _kept_bytes() -> int:
    """Return the memory of the process without what is in use on the heap: free parts of it, and all else."""
    return resident_bytes() - heap_bytes()
