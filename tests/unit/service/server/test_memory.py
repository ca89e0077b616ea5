import asyncio
import gc
import time
import weakref

import pytest

from convvae_service.server import memory
from convvae_service.server.memory import return_freed_memory
from convvae_service.server.process_memory import resident_bytes


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
    looks = 0
    trimmed = asyncio.Event()
    loop = asyncio.get_running_loop()

    def read() -> int:
        nonlocal looks
        looks += 1
        # The first two looks are those before the first interval.
        if looks in (3, 4):
            raise OSError("too many open files")
        return resident_bytes()

    monkeypatch.setattr(memory, "resident_bytes", read)
    monkeypatch.setattr(memory, "trim", lambda: loop.call_soon_threadsafe(trimmed.set))
    task = asyncio.create_task(return_freed_memory(lambda: 1.0, interval_s=0.01))
    await asyncio.wait_for(trimmed.wait(), 20)
    task.cancel()
