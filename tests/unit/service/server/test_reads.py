"""Reads of requests: their time limit, and their end when the server stops."""

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from convvae_service.errors import DeadlineExceeded, NotReady, Overloaded
from convvae_service.server.crowd import Crowd
from convvae_service.server.message_turns import MessageTurns
from convvae_service.server.reads import Reads

NOBODY = "ipv4:127.0.0.1:1"


def new_reads(at_most_s: float = 60, crowd: Crowd | None = None) -> Reads:
    return Reads(
        at_most_s=at_most_s,
        late=late,
        stopped=lambda: NotReady("the server is stopping"),
        turns=MessageTurns(),
        crowd=crowd or Crowd(),
    )


def late() -> DeadlineExceeded:
    return DeadlineExceeded("the request is late")


def never() -> "asyncio.Future[str]":
    """A request that does not arrive."""
    return asyncio.get_running_loop().create_future()


async def at_once() -> str:
    return "request"


async def begin(reads: Reads, read: Awaitable[str]) -> "asyncio.Task[str]":
    """Return a task that reads, when it waits."""
    task = asyncio.create_task(reads.run(lambda: read, NOBODY))
    await asyncio.sleep(0)
    return task


def assert_nothing_is_left(reads: Reads) -> None:
    assert not reads._waiting
    assert not reads._errors
    assert reads.waiting == []


async def test_a_request_in_time_is_returned() -> None:
    """A read gives its result, whether it waits or not, and leaves nothing behind."""
    reads = new_reads(5)
    assert await reads.run(at_once, NOBODY) == "request"
    read = never()
    task = await begin(reads, read)
    read.set_result("later")
    assert await task == "later"
    assert_nothing_is_left(reads)


async def test_an_error_of_the_read_is_the_callers() -> None:
    """The end of a stream, or a fault, goes through."""

    async def end() -> str:
        raise StopAsyncIteration

    reads = new_reads(5)
    with pytest.raises(StopAsyncIteration):
        await reads.run(end, NOBODY)
    assert_nothing_is_left(reads)


async def test_a_late_request_is_refused() -> None:
    """Each read has the whole time from its own beginning, and the refusal is the one of the limit."""
    reads = new_reads(0.05)
    loop = asyncio.get_running_loop()
    ends: dict[int, tuple[float, str]] = {}

    async def read(number: int) -> None:
        began_s = loop.time()
        with pytest.raises(DeadlineExceeded) as caught:
            await reads.run(never, NOBODY)
        # The call goes on after it: it has to be answered.
        current = asyncio.current_task()
        assert current is not None
        assert current.cancelling() == 0
        await asyncio.sleep(0)
        ends[number] = (loop.time() - began_s, str(caught.value))

    async with asyncio.TaskGroup() as tasks:
        for number in range(4):
            tasks.create_task(read(number))
            # Each begins a little later than the one before.
            await asyncio.sleep(0.01)
            assert await reads.run(at_once, NOBODY) == "request"
    assert list(ends) == [0, 1, 2, 3]
    for seconds, message in ends.values():
        assert seconds >= 0.049
        assert message == "the request is late"
    assert_nothing_is_left(reads)


async def test_one_read_of_several_is_ended() -> None:
    """`waiting` has them in the order of their beginnings. The others go on; a second end does nothing."""
    reads = new_reads()
    arriving = [never() for _ in range(3)]
    tasks = [await begin(reads, read) for read in arriving]
    assert [read.task for read in reads.waiting] == tasks
    reads.end(tasks[1], lambda: Overloaded("too many", retry_delay_s=1))
    reads.end(tasks[1], late)
    assert [read.task for read in reads.waiting] == [tasks[0], tasks[2]]
    with pytest.raises(Overloaded):
        await tasks[1]
    for index in (0, 2):
        arriving[index].set_result("request")
        assert await tasks[index] == "request"
    reads.end(tasks[0], late)
    assert_nothing_is_left(reads)


async def test_a_stop_ends_the_reads_that_wait() -> None:
    """All of them are refused, with the state of the server."""
    reads = new_reads()
    tasks = [await begin(reads, never()) for _ in range(3)]
    reads.stop()
    for task in tasks:
        with pytest.raises(NotReady, match="the server is stopping"):
            await task
    assert_nothing_is_left(reads)


async def test_after_a_stop_no_read_waits() -> None:
    """A read that begins later is refused in a moment."""
    reads = new_reads()
    reads.stop()
    for _ in range(2):
        with pytest.raises(NotReady):
            await asyncio.wait_for(reads.run(never, NOBODY), 5)
    assert_nothing_is_left(reads)


async def test_a_request_that_is_there_when_the_server_stops_is_read() -> None:
    """Callers that sent their request before the stop are answered."""
    reads = new_reads()
    reads.stop()
    assert await reads.run(at_once, NOBODY) == "request"
    ready = never()
    ready.set_result("ready")
    assert await reads.run(lambda: ready, NOBODY) == "ready"
    # A stream reads all that is there.
    task = asyncio.create_task(_read_twice(reads))
    assert await task == ["request", "request"]
    assert_nothing_is_left(reads)


async def test_a_request_that_arrives_as_the_server_stops_ends_either_way() -> None:
    """The call is answered or refused: the server may stop before it looks at the request."""
    reads = new_reads()
    arrived = never()
    task = await begin(reads, arrived)
    arrived.set_result("just in time")
    reads.stop()
    (ended,) = await asyncio.gather(task, return_exceptions=True)
    assert ended == "just in time" or isinstance(ended, NotReady)
    assert task.cancelling() == 0
    assert_nothing_is_left(reads)


async def _read_twice(reads: Reads) -> list[str]:
    return [await reads.run(at_once, NOBODY) for _ in range(2)]


async def test_a_caller_that_leaves_is_cancelled() -> None:
    """The cancellation goes on: it is no refusal, and NOBODY would read one."""
    reads = new_reads(5)
    task = await begin(reads, never())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert_nothing_is_left(reads)


@pytest.mark.parametrize("caller_first", [True, False])
async def test_a_caller_that_leaves_as_the_server_stops_is_cancelled(caller_first: bool) -> None:
    """The caller's own counts, if both come at the same moment."""
    reads = new_reads(5)
    task = await begin(reads, never())
    acts: list[Any] = [task.cancel, reads.stop]
    for act in acts if caller_first else reversed(acts):
        act()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert_nothing_is_left(reads)


async def test_a_caller_that_leaves_as_its_time_is_over_is_cancelled() -> None:
    """The same is true of the time limit."""
    reads = new_reads(1000)
    task = await begin(reads, never())
    reads.end(task, late)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert_nothing_is_left(reads)


async def test_new_callers_wait_in_a_crowd_and_others_do_not() -> None:
    """A caller that connects in a crowd reads when the crowd is over, and may leave before."""
    crowd = Crowd()
    reads = new_reads(5, crowd)
    crowd.gather({NOBODY})
    assert await reads.run(at_once, NOBODY) == "request"
    begun: list[str] = []

    async def noted() -> str:
        begun.append("read")
        return "request"

    patient, cancelled = (
        asyncio.create_task(reads.run(noted, "ipv4:127.0.0.1:2")),
        asyncio.create_task(reads.run(noted, "ipv4:127.0.0.1:3")),
    )
    await asyncio.sleep(0.01)
    assert begun == []
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    crowd.disperse()
    assert await patient == "request"
    assert begun == ["read"]
    assert_nothing_is_left(reads)
