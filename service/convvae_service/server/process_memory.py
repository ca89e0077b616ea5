"""The memory of this process, as Linux and the C library know it, and the return of what is free.

Where the C library is not glibc, nothing is returned.
"""

import ctypes
import resource
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, cast

__all__ = ["heap_bytes", "resident_bytes", "return_large_blocks", "trim"]

_PAGE_BYTES = resource.getpagesize()
# Parameters of glibc's `mallopt`.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGE_BYTES = 4 << 20


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


def heap_bytes() -> int:
    """Return the bytes in use on the heap, without what is freed and not yet returned to the system.

    Where the C library cannot tell (before glibc 2.33), it is the memory of the process.
    """
    mallinfo2 = _mallinfo2()
    if mallinfo2 is None:
        return resident_bytes()
    info = mallinfo2()
    return int(info.uordblks + info.hblkhd)


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
