"""Gives freed memory back to the system, which glibc keeps: a process would stay as large as it ever was."""

import asyncio
import ctypes
import logging
from collections.abc import Callable

__all__ = ["give_back_memory", "trim"]

INTERVAL_S = 10.0

_log = logging.getLogger(__name__)


async def give_back_memory(last_arrival_s: Callable[[], float], *, interval_s: float = INTERVAL_S) -> None:
    """Trim every `interval_s` seconds, for as long as calls arrive; returns at once where glibc is not used.

    Args:
        last_arrival_s: When the last call arrived, by any clock.
        interval_s: Seconds between two looks.
    """
    seen_s = None
    while True:
        await asyncio.sleep(interval_s)
        if (arrived_s := last_arrival_s()) == seen_s:
            continue
        seen_s = arrived_s
        # In a thread: it takes some milliseconds, in which Python goes on.
        if not await asyncio.to_thread(trim):
            _log.debug("memory is not given back: this C library cannot")
            return


def trim() -> bool:
    """Give back what the C library can spare, and tell whether it knows how to."""
    try:
        malloc_trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return False
    malloc_trim(0)
    return True
