"""Memory of a process that serves for a long time.

Start-up objects are frozen out of the garbage collector, and freed memory goes back to the system: glibc
keeps it otherwise, and the process stays at its largest size.
"""

import asyncio
import ctypes
import gc
from collections.abc import Callable

__all__ = ["freeze_startup_objects", "return_freed_memory", "trim"]

_INTERVAL_S = 10.0


def freeze_startup_objects() -> None:
    """Take all existing objects out of the garbage collector: modules, models, the server itself.

    Without this, a collection under load searched them every 10 s and delayed all calls by 80 ms.
    """
    gc.collect()
    gc.freeze()


async def return_freed_memory(
    last_arrival_s: Callable[[], float], *, interval_s: float = _INTERVAL_S
) -> None:
    """Collect garbage and trim the heap every `interval_s` seconds in which calls have arrived.

    gRPC leaves a reference cycle behind each refused call, which only the collector frees.

    Args:
        last_arrival_s: Returns the time of the last call's arrival, by any clock.
        interval_s: Seconds between two checks.
    """
    seen_s = None
    while True:
        await asyncio.sleep(interval_s)
        if (arrived_s := last_arrival_s()) == seen_s:
            continue
        seen_s = arrived_s
        gc.collect()
        # In a thread: it takes some milliseconds, and Python can go on meanwhile.
        await asyncio.to_thread(trim)


def trim() -> bool:
    """Return free memory to the system. Return False if the C library has no `malloc_trim`."""
    try:
        malloc_trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return False
    malloc_trim(0)
    return True
