"""Joint calls of tasks, over a server in memory that answers when the test says so."""

import asyncio
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from convvae import errors
from convvae.calls.exchanges import ModelCache
from convvae.coalescing.small_call import Joinable
from convvae.coalescing.tasks import TaskCoalescer
from convvae.model_name import ModelName
from convvae.results import Encoded
from convvae.transport.scheduler import TimeLimit
from support.file_server import BAD, FileServer, encode_files

NAME = ModelName("m")


class Desk(FileServer):
    """A server whose requests wait for `release`, each within its time."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Semaphore(0)
        self.cancelled = 0
        self.coalescer = TaskCoalescer(self.send, ModelCache())

    async def send(self, operation: Joinable, _name: ModelName, limit: TimeLimit) -> Encoded:
        """Send as `AsyncClient` does: wait for the answer or the end of the time."""
        files = self.receive(operation)
        try:
            async with asyncio.timeout(limit.remaining_s()):
                await self.gate.acquire()
        except TimeoutError:
            raise limit.passed() from None
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return self.answer(files)

    def release(self, requests: int = 1000) -> None:
        """Let requests pass."""
        for _ in range(requests):
            self.gate.release()

    async def call(self, *files: int, timeout_s: float = 20.0) -> list[float]:
        """Make one call and return its rows."""
        answer = await self.coalescer.call(encode_files(*files), NAME, TimeLimit(timeout_s))
        rows: list[float] = answer.mean[:, 0].tolist()
        return rows

    def start(self, *files: int, timeout_s: float = 20.0) -> "asyncio.Task[list[float]]":
        """Make one call in a task."""
        return asyncio.create_task(self.call(*files, timeout_s=timeout_s))


async def until(condition: Callable[[], Any]) -> None:
    """Let the other tasks run until a condition holds."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.001)


async def in_flight(*callers: tuple[int, ...]) -> "tuple[Desk, list[asyncio.Task[list[float]]]]":
    """Return a server with one request in flight, and callers that wait behind it. The first caller is 1."""
    desk = Desk()
    tasks = [desk.start(1), *(desk.start(*files) for files in callers)]
    await until(lambda: desk.requests)
    return desk, tasks


async def test_calls_that_wait_leave_together() -> None:
    """The first call is sent at once, and those that arrive during it leave in one request."""
    desk, tasks = await in_flight((2, 3), (4,), (5, 6, 7))
    assert desk.requests == [[1]]
    desk.release()
    assert await asyncio.gather(*tasks) == [[1], [2, 3], [4], [5, 6, 7]]
    assert list(map(sorted, desk.requests)) == [[1], [2, 3, 4, 5, 6, 7]]


async def test_callers_that_call_again_stay_together() -> None:
    """Callers that call in a loop share every request from the second on."""
    desk = Desk()

    async def loop(value: int) -> None:
        for _ in range(5):
            assert await desk.call(value) == [value]

    async def release() -> None:
        while True:
            await asyncio.sleep(0.001)
            desk.release(1)

    releases = asyncio.create_task(release())
    await asyncio.gather(*(loop(value) for value in range(8)))
    releases.cancel()
    assert [len(files) for files in desk.requests] == [1, 8, 8, 8, 8, 7]


async def test_a_caller_alone_waits_for_nothing() -> None:
    """The calls of one caller go straight to the server: no task, no turn of the event loop."""
    desk = Desk()
    desk.release(3)
    for value in range(3):
        call = desk.call(value)
        with pytest.raises(StopIteration) as done:
            call.send(None)
        assert done.value.value == [value]
    assert not desk.coalescer._gatherings


async def test_a_bad_file_fails_its_own_caller() -> None:
    """Only the caller of a bad file sends again alone, and reads its own index; the others are joined."""
    desk, tasks = await in_flight((2, 3), (4, BAD), (5,))
    desk.release()
    first, good, bad, last = await asyncio.gather(*tasks, return_exceptions=True)
    assert (first, good, last) == ([1], [2, 3], [5])
    assert isinstance(bad, errors.InvalidInput)
    assert [violation.field for violation in bad.violations] == ["files[1]"]
    assert bad.message == "files[1]: no image"
    assert sorted(map(sorted, desk.requests[2:])) == [[2, 3, 5], [4, BAD]]


@pytest.mark.parametrize("kind", [errors.Unavailable, errors.Overloaded, errors.NotFound])
async def test_an_error_of_the_server_is_not_multiplied(kind: type[errors.ConvvaeError]) -> None:
    """A joint call that the server refuses is not sent again, and every caller gets its error."""
    desk, tasks = await in_flight((2,), (3,), (4,))

    def spoil(files: list[int]) -> None:
        if len(files) > 1:
            raise kind("on purpose", request_id="id-7")

    desk.spoil = spoil
    desk.release()
    first, *outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert (first, len(desk.requests)) == ([1], 2)
    assert len({id(error) for error in outcomes}) == 3
    for error in outcomes:
        assert isinstance(error, kind)
        assert error.request_id == "id-7"


async def test_an_error_of_unknown_rows_is_settled_alone() -> None:
    """If a joint call fails for an unknown reason, each caller sends its rows alone."""
    desk, tasks = await in_flight((2,), (3,), (4,))

    def spoil(files: list[int]) -> None:
        if 3 in files:
            raise MemoryError

    desk.spoil = spoil
    desk.release()
    first, two, three, four = await asyncio.gather(*tasks, return_exceptions=True)
    assert (first, two, type(three), four) == ([1], [2], MemoryError, [4])


async def test_each_caller_keeps_its_own_time() -> None:
    """A caller that gives up leaves in time; the others stay in the joint call and get their answer."""
    desk, (first, patient) = await in_flight((2,))
    hasty = desk.start(3, timeout_s=0.2)
    await asyncio.sleep(0)
    desk.release(1)
    await until(lambda: len(desk.requests) == 2)
    with pytest.raises(errors.DeadlineExceeded, match=r"not answered within 0\.2 s"):
        await hasty
    assert not patient.done()
    desk.release(1)
    assert (await first, await patient, len(desk.requests)) == ([1], [2], 2)


async def test_time_of_one_caller_cuts_no_other_short() -> None:
    """A joint call has the time of its most patient caller, whatever the order of arrival."""
    desk, tasks = await in_flight()
    tasks += [desk.start(2, timeout_s=0.1), desk.start(3), desk.start(4, timeout_s=0.1)]
    await asyncio.sleep(0)
    desk.release(1)
    outcomes = asyncio.gather(*tasks, return_exceptions=True)
    await until(lambda: tasks[1].done() and tasks[3].done())
    desk.release()
    first, two, three, four = await outcomes
    assert (first, three) == ([1], [3])
    assert isinstance(two, errors.DeadlineExceeded)
    assert isinstance(four, errors.DeadlineExceeded)
    assert len(desk.requests) == 2


async def test_a_request_that_hangs_does_not_hold_the_others() -> None:
    """After a tenth of its time, a call is sent beside the request in flight."""
    desk, (stuck,) = await in_flight()
    others = [desk.start(value, timeout_s=1.0) for value in (2, 3)]
    await until(lambda: len(desk.requests) == 2)
    assert sorted(desk.requests[1]) == [2, 3]
    assert not stuck.done()
    desk.release()
    assert await asyncio.gather(stuck, *others) == [[1], [2], [3]]


async def test_a_call_that_waits_again_does_so_for_a_tenth_of_its_time() -> None:
    """A call that the bad file of another puts back does not wait for a request that hangs either."""
    desk = Desk()
    hang = asyncio.Event()

    async def send(operation: Joinable, name: ModelName, limit: TimeLimit) -> Encoded:
        answer = await desk.send(operation, name, limit)
        if answer.mean[0, 0] == 1:
            await hang.wait()
        return answer

    desk.coalescer._send = send
    desk.release()
    stuck, good, bad = desk.start(1), desk.start(2, timeout_s=2.0), desk.start(BAD, timeout_s=2.0)
    assert await good == [2]
    with pytest.raises(errors.InvalidInput):
        await bad
    assert list(map(sorted, desk.requests)) == [[1], [2, BAD], [BAD], [2]]
    assert not stuck.done()
    hang.set()
    assert await stuck == [1]


async def test_a_cancelled_caller_harms_nobody() -> None:
    """A caller may be cancelled while it waits, while it is in a joint call, and while it is sent alone."""
    desk, (first, waits, second, third) = await in_flight((2,), (3,), (4,))
    waits.cancel()
    desk.release(1)
    await until(lambda: len(desk.requests) == 2)
    assert sorted(desk.requests[1]) == [3, 4]
    second.cancel()
    desk.release(1)
    assert (await first, await third) == ([1], [4])
    assert (waits.cancelled(), second.cancelled(), desk.cancelled) == (True, True, 0)
    alone, behind = desk.start(5), desk.start(6)
    await until(lambda: len(desk.requests) == 3)
    alone.cancel()
    desk.release()
    assert await behind == [6]
    assert desk.cancelled == 1


async def test_a_joint_call_without_callers_is_cancelled() -> None:
    """If all callers of a joint call have left, the server sees it cancelled, and the next is sent."""
    desk, (first, second, third) = await in_flight((2,), (3,))
    desk.release(1)
    assert await first == [1]
    await until(lambda: len(desk.requests) == 2)
    fourth = desk.start(4)
    second.cancel()
    third.cancel()
    await until(lambda: len(desk.requests) == 3)
    assert desk.cancelled == 1
    desk.release()
    assert await fourth == [4]


async def test_a_cancelled_joint_call_is_sent_again() -> None:
    """If something cancels the task of a joint call, its callers go into the next."""
    desk, tasks = await in_flight((2,), (3,))
    known = asyncio.all_tasks()
    desk.release(1)
    await until(lambda: len(desk.requests) == 2)
    (joint,) = asyncio.all_tasks() - known
    joint.cancel()
    desk.release()
    assert await asyncio.gather(*tasks) == [[1], [2], [3]]


async def test_close_ends_the_calls_that_wait() -> None:
    """Calls that wait end with Cancelled; later ones are refused."""
    desk, (first, *others) = await in_flight((2,), (3,))
    desk.coalescer.close()
    outcomes = await asyncio.gather(*others, return_exceptions=True)
    assert [type(error) for error in outcomes] == [errors.Cancelled] * 2
    with pytest.raises(errors.ClientClosed):
        await desk.call(4)
    desk.release()
    assert await first == [1]


async def test_errors_keep_no_rows_alive() -> None:
    """A caller that keeps its error keeps no rows of others, and its own only as long as the error."""
    rows: list[weakref.ref[Any]] = []
    caught: list[BaseException] = []
    desk, (first,) = await in_flight()

    async def call(value: int) -> None:
        small = encode_files(value)
        rows.append(weakref.ref(small.operation.images))  # type: ignore[union-attr]
        try:
            await desk.coalescer.call(small, NAME, TimeLimit(20.0))
        except errors.Unavailable as error:
            if value == 2:
                caught.append(error)

    tasks = [asyncio.create_task(call(value)) for value in (2, 3, 4)]
    await asyncio.sleep(0)

    def spoil(files: list[int]) -> None:
        if len(files) > 1:
            raise errors.Unavailable("on purpose")

    desk.spoil = spoil
    gc.disable()
    try:
        desk.release()
        await asyncio.wait(tasks)
        await asyncio.sleep(0.01)
        assert [row() is None for row in rows] == [False, True, True]
        caught.clear()
        assert rows[0]() is None
    finally:
        gc.enable()
    assert await first == [1]
