"""Reads that go on when nobody waits for them any more."""

import asyncio
from collections.abc import Awaitable

import pytest

from convvae_service.server.lasting_read import lasting
from convvae_service.server.message_turns import MessageTurns


class Steps:
    """A read in two steps, which notes how far it has come. The test ends each step."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.first: asyncio.Future[str] = loop.create_future()
        self.second: asyncio.Future[str] = loop.create_future()
        self.seen: list[str] = []

    async def read(self) -> str:
        try:
            self.seen.append(await self.first)
            self.seen.append(await self.second)
        except BaseException as error:
            self.seen.append(type(error).__name__)
            raise
        return "message"


async def begun(read: Awaitable[str], turns: MessageTurns | None = None) -> "asyncio.Task[str]":
    """Return a task that waits for the read."""

    async def wait() -> str:
        return await lasting(read, turns or MessageTurns())

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    return task


async def turns(count: int = 3) -> None:
    """Let the event loop do what it has to."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_read_returns_its_result() -> None:
    """With and without a wait, in as many steps as it has."""

    async def at_once() -> str:
        return "message"

    assert await lasting(at_once(), MessageTurns()) == "message"
    steps = Steps()
    task = await begun(steps.read())
    steps.first.set_result("one")
    await turns()
    assert not task.done()
    steps.second.set_result("two")
    assert await task == "message"


async def test_an_error_of_the_read_goes_through() -> None:
    """The caller has left, or gRPC fails."""
    steps = Steps()
    task = await begun(steps.read())
    steps.first.set_exception(ConnectionError("gone"))
    with pytest.raises(ConnectionError, match="gone"):
        await task


@pytest.mark.parametrize("at_second", [False, True])
async def test_a_cancelled_task_leaves_its_read_alone(at_second: bool) -> None:
    """The task ends at once. The read goes on to its end, so that gRPC frees the message."""
    steps = Steps()
    task = await begun(steps.read())
    if at_second:
        steps.first.set_result("one")
        await turns()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not steps.first.cancelled()
    if not at_second:
        steps.first.set_result("one")
    await turns()
    assert steps.seen == ["one"]
    assert not steps.second.cancelled()
    steps.second.set_result("two")
    await turns()
    assert steps.seen == ["one", "two"]


async def test_a_read_that_fails_after_its_task_is_silent() -> None:
    """Its call is over: nobody would hear of the error."""
    steps = Steps()
    heard: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))
    task = await begun(steps.read())
    task.cancel()
    await asyncio.wait([task])
    steps.first.set_exception(ConnectionError("gone"))
    await turns()
    assert steps.seen == ["ConnectionError"]
    assert heard == []


async def test_a_message_at_the_same_moment_as_the_end_is_dropped() -> None:
    """The task is cancelled, and the read still ends."""
    steps = Steps()
    task = await begun(steps.read())
    steps.first.set_result("one")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    steps.second.set_result("two")
    await turns()
    assert steps.seen == ["one", "two"]


@pytest.mark.parametrize("has_left", [False, True])
async def test_a_read_takes_its_message_when_it_is_its_turn(has_left: bool) -> None:
    """It waits while others have theirs, and so does a read whose task was cancelled meanwhile."""
    clock = [0.0]
    turns_of_all = MessageTurns(lambda: clock[0])
    steps = Steps()
    task = await begun(steps.read(), turns_of_all)
    clock[0] = 1.0
    # A copy of 0.1 s has just ended.
    turns_of_all.end(0.9)
    steps.first.set_result("one")
    await turns()
    if has_left:
        task.cancel()
    await asyncio.sleep(0.02)
    assert steps.seen == []
    clock[0] = 1.2
    await asyncio.sleep(0.2)
    assert steps.seen == ["one"]
    steps.second.set_result("two")
    await asyncio.wait([task])
    assert steps.seen == ["one", "two"]
