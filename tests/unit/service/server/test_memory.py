import asyncio
import ctypes
import gc
import subprocess
import sys
import time
import weakref

import pytest

from convvae_service.server import memory
from convvae_service.server.memory import return_freed_memory, trim
from support.resident import resident_kib


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library is not glibc")
def test_trimming_gives_back_what_is_pinned_by_a_little() -> None:
    """Freed blocks between blocks that are still used go back to the system, which glibc alone keeps."""
    # Below the size from which glibc gives a block back by itself.
    blocks = [b"x" * 65_536 for _ in range(1000)]
    pins = blocks[::50]
    full_kib = resident_kib()
    del blocks
    assert trim()
    assert full_kib - resident_kib() > 40_000
    assert len(pins) == 20


async def test_memory_is_given_back_only_after_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that nobody calls is not woken for nothing."""
    trims: list[float] = []
    arrived_s = 1.0

    def count() -> bool:
        trims.append(time.monotonic())
        return True

    monkeypatch.setattr(memory, "trim", count)

    async def comes_to(number: int) -> None:
        async with asyncio.timeout(20):
            while len(trims) < number:  # noqa: ASYNC110 - a thread trims
                await asyncio.sleep(0.01)

    task = asyncio.create_task(return_freed_memory(lambda: arrived_s, interval_s=0.02))
    # Once for what came before, once more after a call, and not again without one.
    await comes_to(1)
    arrived_s += 1
    await comes_to(2)
    await asyncio.sleep(0.3)
    task.cancel()
    assert len(trims) == 2


async def test_what_is_freed_during_a_trim_is_given_back_by_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A busy server is trimmed again while a trim returns memory, and left alone when one returns nothing."""
    mib = 1 << 20
    # 40 MiB at the start. The first trim leaves 100 MiB, of which the second returns 20 MiB.
    kept = {"mib": 40}
    after_trims = [100, 80, 80]
    trims: list[int] = []

    def trim() -> bool:
        trims.append(kept["mib"])
        kept["mib"] = after_trims[len(trims) - 1]
        return True

    monkeypatch.setattr(memory, "trim", trim)
    monkeypatch.setattr(memory, "_kept_bytes", lambda: kept["mib"] * mib)
    # No call arrives: memory alone is the reason.
    task = asyncio.create_task(return_freed_memory(lambda: None, interval_s=0.005))  # type: ignore[arg-type, return-value]
    await asyncio.sleep(0.05)
    assert trims == []
    kept["mib"] = 300
    await asyncio.sleep(0.5)
    assert trims == [300, 100, 80]
    task.cancel()


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no `malloc_trim` nothing is done."""
    monkeypatch.setattr(ctypes, "CDLL", lambda _: sys)
    assert not trim()


async def test_garbage_in_circles_is_collected_after_calls() -> None:
    """Objects that only the collector frees do not wait for the next rush."""

    class Circle:
        def __init__(self) -> None:
            self.itself = self

    circle = weakref.ref(Circle())
    assert circle() is not None

    gc.disable()
    try:
        task = asyncio.create_task(return_freed_memory(lambda: 1.0, interval_s=0.01))
        await asyncio.sleep(0.2)
        task.cancel()
    finally:
        gc.enable()
    assert circle() is None


async def test_a_process_that_has_grown_collects_sooner() -> None:
    """While calls go on, a large request in a circle of references is freed after eight intervals."""

    class Circle:
        def __init__(self) -> None:
            self.itself = self
            self.data = bytearray(b"x" * (48 << 20))

    intervals = 0

    def arrived_s() -> float:
        nonlocal intervals
        intervals += 1
        return float(intervals)

    gc.collect()
    gc.disable()
    try:
        task = asyncio.create_task(return_freed_memory(arrived_s, interval_s=0.01))
        await asyncio.sleep(0.02)
        circle = weakref.ref(Circle())
        began = intervals
        async with asyncio.timeout(20):
            while circle() is not None:  # noqa: ASYNC110 - the collector frees it
                await asyncio.sleep(0.005)
        assert intervals - began <= 10
        task.cancel()
    finally:
        gc.enable()


async def test_memory_is_given_back_after_a_time_without_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit of open files the size of the process cannot be read, and later it can."""
    read, looks = memory.resident_bytes, 0
    trimmed = asyncio.Event()
    loop = asyncio.get_running_loop()

    def resident_bytes() -> int:
        nonlocal looks
        looks += 1
        # The first two looks are those before the first interval.
        if looks in (3, 4):
            raise OSError("too many open files")
        return read()

    monkeypatch.setattr(memory, "resident_bytes", resident_bytes)
    monkeypatch.setattr(memory, "trim", lambda: loop.call_soon_threadsafe(trimmed.set))
    task = asyncio.create_task(return_freed_memory(lambda: 1.0, interval_s=0.01))
    await asyncio.wait_for(trimmed.wait(), 20)
    task.cancel()


_LARGE_BLOCKS = """
import sys, threading
from convvae_service.server.memory import heap_bytes, resident_bytes, return_large_blocks

if sys.argv[1] == "returned":
    return_large_blocks()

def work():
    global kept
    for mib in (30, 10, 10):
        blocks = [b"x" * (mib << 20) for _ in range(2)]
        del blocks
    kept = resident_bytes() - heap_bytes()

before = resident_bytes() - heap_bytes()
thread = threading.Thread(target=work)
thread.start()
thread.join()
print(kept - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library is not glibc")
def test_large_blocks_go_back_as_soon_as_they_are_freed() -> None:
    """In any thread, and without a trim. By default the heap of the thread keeps some of them."""
    kept = {
        how: int(
            subprocess.run(
                [sys.executable, "-c", _LARGE_BLOCKS, how],
                capture_output=True,
                text=True,
                timeout=60,
                check=True,
            ).stdout
        )
        for how in ("default", "returned")
    }
    assert kept["default"] > 16 << 20
    assert kept["returned"] < 4 << 20
