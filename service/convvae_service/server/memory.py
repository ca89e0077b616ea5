"""Memory of a process that serves for a long time.

Start-up objects are frozen out of the garbage collector, and freed memory goes back to the system: glibc
keeps it otherwise, and the process stays at its largest size.
"""

import asyncio
import ctypes
import gc
import resource
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, cast

__all__ = [
    "freeze_startup_objects",
    "heap_bytes",
    "resident_bytes",
    "return_freed_memory",
    "return_large_blocks",
    "trim",
]

_INTERVAL_S = 0.25
# A collection under load delays calls.
_MAX_BUSY_INTERVALS = 40
# The same while the process is larger than it was: a circle of references may hold a large request.
_MAX_FULL_INTERVALS = 8
_MAX_FREE_BYTES = 32 << 20
_MIN_RETURNED_BYTES = 4 << 20
_PAGE_BYTES = resource.getpagesize()
# Parameters of glibc's `mallopt`.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGE_BYTES = 4 << 20


def return_large_blocks() -> None:
    """Return blocks of 4 MiB or more to the system as soon as they are freed, and the free ends of heaps.

    By default glibc raises both limits to the largest block that was ever freed, up to 64 MiB. Each of its
    heaps, of which a thread may have its own, then keeps a free end of this size, which no trim returns.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)
    mallopt(_TRIM_THRESHOLD, _LARGE_BYTES)


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
    seen_s, busy_intervals = None, 0
    # The part that cannot be returned.
    used_bytes = _kept_bytes()
    least_bytes = resident_bytes()
    while True:
        await asyncio.sleep(interval_s)
        # At the limit of open files, the size of the process cannot be read for a moment.
        with suppress(OSError):
            arrived_s = last_arrival_s()
            is_quiet, seen_s = arrived_s == seen_s, arrived_s
            busy_intervals += not is_quiet
            now_bytes = resident_bytes()
            # Without calls, what is there is the process itself.
            least_bytes = now_bytes if is_quiet and not busy_intervals else min(least_bytes, now_bytes)
            is_full = now_bytes > least_bytes + _MAX_FREE_BYTES
            at_most = _MAX_FULL_INTERVALS if is_full else _MAX_BUSY_INTERVALS
            is_due = busy_intervals >= at_most or (is_quiet and busy_intervals > 0)
            if is_due:
                busy_intervals = 0
                gc.collect()
            kept_bytes = _kept_bytes()
            used_bytes = min(used_bytes, kept_bytes)
            if is_due or kept_bytes > used_bytes + _MAX_FREE_BYTES:
                # In a thread: it takes some milliseconds, and Python can go on meanwhile.
                await asyncio.to_thread(trim)
                left_bytes = _kept_bytes()
                # More may have been freed meanwhile. Only a trim that returns nothing shows what is in use.
                is_all = left_bytes > kept_bytes - _MIN_RETURNED_BYTES
                used_bytes = left_bytes if is_all else min(used_bytes, left_bytes)


def _kept_bytes() -> int:
    """Return the memory of the process without what is in use on the heap: free parts of it, and all else."""
    return resident_bytes() - heap_bytes()


class _Mallinfo2(ctypes.Structure):
    """`struct mallinfo2` of glibc."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd",
            "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    )  # fmt: skip


@cache
def _mallinfo2() -> Callable[[], Any] | None:
    try:
        # It takes microseconds: to release the GIL for it would cost more.
        found = ctypes.PyDLL(None).mallinfo2
    except (OSError, AttributeError):
        return None
    found.restype = _Mallinfo2
    return cast("Callable[[], Any]", found)


def heap_bytes() -> int:
    """Return the bytes in use on the heap, without what is freed and not yet returned to the system.

    Where the C library cannot tell (before glibc 2.33), it is the memory of the process.
    """
    mallinfo2 = _mallinfo2()
    if mallinfo2 is None:
        return resident_bytes()
    info = mallinfo2()
    return int(info.uordblks + info.hblkhd)


def resident_bytes() -> int:
    """Return the bytes of memory that the process has."""
    with Path("/proc/self/statm").open("rb") as file:
        return int(file.read().split()[1]) * _PAGE_BYTES


def trim() -> bool:
    """Return free memory to the system. Return False if the C library has no `malloc_trim`."""
    try:
        malloc_trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return False
    malloc_trim(0)
    return True
