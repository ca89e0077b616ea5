"""Callers that send a part of a message, and then nothing."""

import asyncio
from collections import Counter

import pytest

from convvae_service.server import silent_callers
from convvae_service.server.silent_callers import SilentCallers

MIB = 1 << 20


class Watched:
    """A process with 100 MiB of its own, and callers that may be silent for 10 s."""

    def __init__(self) -> None:
        self.resident_mib = 100
        self.explained_mib = 0
        self.sent: Counter[str] = Counter()
        self.busy: set[str] = set()
        self.closed: list[set[str]] = []
        self.looks = 0
        self.watch = SilentCallers(
            at_most_s=10,
            sent=self._look,
            explained_bytes=lambda: self.explained_mib * MIB,
            busy=lambda: self.busy,
            resident=lambda: self.resident_mib * MIB,
            close=lambda peers: self.closed.append(set(peers)),
        )

    def _look(self) -> Counter[str]:
        self.looks += 1
        return self.sent

    def check(self, *times_s: float) -> list[set[str]]:
        """Look at these times, and return what has been closed so far."""
        for now_s in times_s:
            self.watch.check(now_s)
        return self.closed


def test_a_silent_caller_is_ended() -> None:
    """Its part of a message takes memory. One that goes on sending, and one that has sent little, stay."""
    watched = Watched()
    watched.resident_mib = 180
    watched.sent.update(silent=80 * MIB, active=80 * MIB, small=10_000)
    assert watched.check(0) == []
    watched.sent["active"] += MIB
    watched.sent["silent"] += 100
    assert watched.check(6, 9.9) == []
    assert watched.check(10) == [{"silent"}]


def test_nobody_is_looked_at_without_memory_that_is_not_explained() -> None:
    """The usual case costs one look at the memory of the process."""
    watched = Watched()
    watched.sent.update(idle=80 * MIB)
    watched.check(0, 20)
    watched.resident_mib, watched.explained_mib = 400, 300
    assert watched.check(40, 60) == []
    assert watched.looks == 0


def test_a_caller_whose_call_runs_is_left_alone() -> None:
    """It waits for its answer, and its time is counted from the end of the call."""
    watched = Watched()
    watched.resident_mib = 180
    watched.sent.update(caller=80 * MIB)
    watched.busy.add("caller")
    assert watched.check(0, 20) == []
    watched.resident_mib = 260
    watched.busy.clear()
    assert watched.check(21, 30) == []
    assert watched.check(31) == [{"caller"}]


def test_memory_that_nobody_has_sent_is_the_process_itself() -> None:
    """A model was loaded, for example: from then on it is expected."""
    watched = Watched()
    watched.resident_mib = 500
    watched.check(0)
    watched.sent.update(idle=80 * MIB)
    assert watched.check(1, 20) == []
    watched.resident_mib = 100
    watched.check(30)
    watched.resident_mib = 180
    assert watched.check(31, 41) == [{"idle"}]


async def test_the_watch_survives_a_system_without_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory of the process is read from a file, which cannot be opened at the limit of open files."""
    monkeypatch.setattr(silent_callers, "_INTERVAL_S", 0.001)
    looks = 0
    seen = asyncio.Event()

    def resident() -> int:
        nonlocal looks
        looks += 1
        if looks == 2:
            raise OSError("too many open files")
        if looks == 4:
            seen.set()
        return 100 * MIB

    watch = SilentCallers(
        at_most_s=10, sent=Counter, explained_bytes=lambda: 0, busy=frozenset, resident=resident
    )
    running = asyncio.create_task(watch.run())
    await asyncio.wait_for(seen.wait(), 5)
    running.cancel()
