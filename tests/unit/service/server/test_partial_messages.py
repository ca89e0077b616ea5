"""The limit on messages that have arrived in part."""

import asyncio
from typing import Any

import pytest

from convvae_service.batching.pending_bytes import PendingBytes
from convvae_service.errors import DeadlineExceeded, NotReady, Overloaded
from convvae_service.server.crowd import Crowd
from convvae_service.server.message_turns import MessageTurns
from convvae_service.server.partial_messages import PartialMessages
from convvae_service.server.process_memory import heap_bytes
from convvae_service.server.reads import Reads

MIB = 1 << 20


class LaterLoop:
    """The running loop, as some seconds later."""

    def __init__(self, after_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._after_s = after_s

    def time(self) -> float:
        return self._loop.time() + self._after_s

    def call_soon_threadsafe(self, *args: Any) -> None:
        self._loop.call_soon(*args)


class Watched:
    """Two kinds of reads, and a heap that the test sets. The limit is 100 MiB."""

    def __init__(self) -> None:
        self.heap_mib = 500
        self.decoding_mib = 0
        self.closed: list[set[str]] = []
        self.sent: dict[str, int] = {}
        self.crowd = Crowd()
        self.account = PendingBytes(1000 * MIB)
        self.reads = [
            Reads(
                at_most_s=60,
                late=lambda: DeadlineExceeded("late"),
                stopped=lambda: NotReady("stopping"),
                turns=MessageTurns(),
                crowd=self.crowd,
            )
            for _ in range(2)
        ]
        self.watch = PartialMessages(
            self.reads,
            self.account,
            decoding_bytes=lambda: self.decoding_mib * MIB,
            max_bytes=100 * MIB,
            sent=lambda: self.sent,
            crowd=self.crowd,
            heap=lambda: self.heap_mib * MIB,
            close=lambda peers: self.closed.append(set(peers)),
        )
        self.be_quiet()

    def be_quiet(self) -> None:
        """Check as often as it takes to learn what the process itself has."""
        for _ in range(100):
            self.watch.check(LaterLoop(0))  # type: ignore[arg-type]

    async def begin(self, *kinds: int) -> "list[asyncio.Task[Any]]":
        """Return tasks whose reads wait, each begun a little later than the one before."""
        tasks: list[asyncio.Task[Any]] = []
        for kind in kinds:
            peer = f"ipv4:127.0.0.1:{len(tasks)}"
            never = asyncio.get_running_loop().create_future
            tasks.append(asyncio.create_task(self.reads[kind].run(never, peer)))
            await asyncio.sleep(0.001)
        return tasks

    async def ended(self, tasks: "list[asyncio.Task[Any]]", *, after_s: float = 1) -> list[int]:
        """Check as if so much time had passed, and return which of the tasks have ended."""
        self.watch.check(LaterLoop(after_s))  # type: ignore[arg-type]
        for _ in range(3):
            await asyncio.sleep(0)
        return [index for index, task in enumerate(tasks) if task.done()]


async def test_the_oldest_reads_are_ended_as_far_as_needed() -> None:
    """The reads that have waited longest end, as many as hold the bytes above the limit."""
    watched = Watched()
    tasks = await watched.begin(0, 1, 0, 1)
    watched.heap_mib += 100
    assert await watched.ended(tasks) == []
    watched.heap_mib += 6
    assert await watched.ended(tasks) == [0]
    for task in tasks[:1]:
        with pytest.raises(Overloaded, match="parts of too many messages") as caught:
            task.result()
        assert caught.value.retry_delay_s > 0
    watched.heap_mib -= 50
    assert await watched.ended(tasks) == [0]
    assert watched.closed == []
    for task in tasks[1:]:
        task.cancel()


async def test_far_above_the_limit_connections_are_closed() -> None:
    """The event loop may be blocked, and callers send on: the connections of the oldest reads end at once."""
    watched = Watched()
    tasks = await watched.begin(0, 1, 0, 1)
    watched.heap_mib += 107
    assert await watched.ended(tasks) == []
    assert watched.closed == [{"ipv4:127.0.0.1:0"}]
    watched.heap_mib += 93
    assert await watched.ended(tasks) == []
    assert watched.closed[1:] == [{"ipv4:127.0.0.1:0", "ipv4:127.0.0.1:1"}]
    for task in tasks:
        task.cancel()


async def test_callers_that_have_sent_little_are_left_alone() -> None:
    """They hold no large part, however long they have waited while the event loop was blocked."""
    watched = Watched()
    tasks = await watched.begin(0, 1, 0, 1)
    watched.sent = {"ipv4:127.0.0.1:0": 10_000, "ipv4:127.0.0.1:1": MIB}
    watched.heap_mib += 103
    assert await watched.ended(tasks) == [1]
    watched.heap_mib += 97
    assert await watched.ended(tasks) == [1]
    # That of the third is not known to the system, as for a Unix socket.
    assert watched.closed == [{"ipv4:127.0.0.1:2"}]
    for task in (tasks[0], *tasks[2:]):
        task.cancel()


async def test_what_calls_hold_is_no_partial_message() -> None:
    """The account explains it. It leaves less room for messages in part, but ends no read for itself."""
    watched = Watched()
    tasks = await watched.begin(0)
    watched.account.hold().add(80 * MIB)
    watched.heap_mib += 80
    assert await watched.ended(tasks) == []
    watched.heap_mib += 19
    assert await watched.ended(tasks) == []
    watched.heap_mib += 2
    assert await watched.ended(tasks) == [0]
    alone = await watched.begin(0)
    watched.account.hold().add(400 * MIB)
    watched.heap_mib += 379
    assert await watched.ended(alone) == []
    alone[0].cancel()


async def test_what_counts_with_more_than_it_holds_ends_no_later_read() -> None:
    """A file counts with the most that decoding may take. Afterwards the process is as large as before."""
    watched = Watched()
    tasks = await watched.begin(0)
    watched.decoding_mib = 400
    for heap_mib in (510, 890):
        watched.heap_mib = heap_mib
        assert await watched.ended(tasks) == []
    watched.decoding_mib = 0
    watched.heap_mib = 599
    assert await watched.ended(tasks) == []
    watched.heap_mib = 601
    assert await watched.ended(tasks) == [0]


async def test_a_read_that_has_just_begun_is_left_alone() -> None:
    """Its message may be there already."""
    watched = Watched()
    tasks = await watched.begin(0)
    watched.heap_mib += 106
    assert await watched.ended(tasks, after_s=0.001) == []
    assert await watched.ended(tasks, after_s=1) == [0]


async def test_growth_that_no_read_explains_ends_no_later_read() -> None:
    """Another model was loaded: reads may end for a moment, and then the process is larger."""
    watched = Watched()
    first = await watched.begin(0)
    watched.heap_mib += 106
    assert await watched.ended(first) == [0]
    watched.be_quiet()
    second = await watched.begin(0)
    assert await watched.ended(second) == []
    second[0].cancel()


def test_the_heap_is_seen() -> None:
    """A block counts from its allocation until it is freed."""
    before = heap_bytes()
    block = bytearray(50 * MIB)
    assert 49 * MIB < heap_bytes() - before < 51 * MIB
    del block
    assert abs(heap_bytes() - before) < MIB


async def test_new_callers_wait_from_half_of_the_limit() -> None:
    """A crowd begins at half of the limit, begins again after a second, and ends when there is room again."""
    watched = Watched()
    tasks = await watched.begin(0)
    assert not watched.crowd.is_there
    watched.sent = {"ipv4:127.0.0.1:0": MIB}
    watched.heap_mib += 49
    await watched.ended(tasks)
    assert not watched.crowd.is_there
    watched.heap_mib += 2
    await watched.ended(tasks)
    assert watched.crowd.is_there
    newcomer = asyncio.create_task(watched.crowd.let_in("ipv4:127.0.0.1:9"))
    await watched.crowd.let_in("ipv4:127.0.0.1:0")
    for _ in range(40):
        await watched.ended(tasks)
    assert not newcomer.done()
    for _ in range(15):
        await watched.ended(tasks)
    assert newcomer.done()
    assert watched.crowd.is_there
    watched.heap_mib -= 2
    for _ in range(5):
        assert watched.crowd.is_there
        await watched.ended(tasks)
    assert not watched.crowd.is_there
    tasks[0].cancel()


async def test_connections_are_looked_at_when_it_matters() -> None:
    """In a crowd below the limit once a second, and above the limit each time."""
    watched = Watched()
    tasks = await watched.begin(0)
    looks = 0

    def look() -> dict[str, int]:
        nonlocal looks
        looks += 1
        return watched.sent

    watched.watch._sent = look
    watched.heap_mib += 60
    for _ in range(45):
        await watched.ended(tasks)
    assert looks == 1
    for _ in range(10):
        await watched.ended(tasks)
    assert looks == 2
    watched.heap_mib += 50
    await watched.ended(tasks)
    await watched.ended(tasks)
    assert looks == 4
    for task in tasks:
        task.cancel()
