"""A read that ends by itself when nobody waits for it any more.

gRPC never frees a message that arrives after its read was cancelled. If the read is left alone, it gets the
message, or nothing at the end of the call, and gRPC frees all of it.
"""

import asyncio
from collections.abc import Awaitable, Generator
from functools import partial
from types import coroutine
from typing import Any, TypeVar

from convvae_service.server.message_turns import MessageTurns

__all__ = ["lasting"]

T = TypeVar("T")


@coroutine
def lasting(read: Awaitable[T], turns: MessageTurns) -> Generator[Any, None, T]:
    """Return the result of `read`. If the task is cancelled, the read goes on, and its result is dropped.

    `asyncio.shield` does the same with a task for each read, which costs several times as much.

    Args:
        read: The read of a message. gRPC copies the message in the step after its arrival.
        turns: The turns of such steps.
    """
    steps = read.__await__()
    loop = asyncio.get_running_loop()
    began_s = step_began_s = turns.clock()
    while True:
        try:
            arriving: asyncio.Future[Any] = steps.send(None)
        except StopIteration as end:
            turns.end(step_began_s)
            result: T = end.value
            return result
        # It awaits a future, as tasks do. Here the task waits for another one, which may be cancelled.
        arriving._asyncio_future_blocking = False
        waiting: asyncio.Future[None] = loop.create_future()
        arriving.add_done_callback(partial(_wake, waiting))
        try:
            yield from waiting
            if (turn := turns.join(began_s)) is not None:
                yield from turn
        except BaseException:
            arriving.add_done_callback(partial(_go_on, steps, turns, began_s))
            raise
        step_began_s = turns.clock()


def _wake(waiting: "asyncio.Future[None]", _: "asyncio.Future[Any]") -> None:
    if not waiting.done():
        waiting.set_result(None)


def _go_on(
    steps: Generator[Any, None, Any], turns: MessageTurns, began_s: float, _: "asyncio.Future[Any]"
) -> None:
    """Let the read end when it is its turn, however it does: its call is over."""
    if (turn := turns.join(began_s)) is not None:
        turn.add_done_callback(partial(_step, steps, turns, began_s))
    else:
        _step(steps, turns, began_s)


def _step(
    steps: Generator[Any, None, Any],
    turns: MessageTurns,
    began_s: float,
    _: "asyncio.Future[Any] | None" = None,
) -> None:
    step_began_s = turns.clock()
    try:
        arriving: asyncio.Future[Any] = steps.send(None)
    except BaseException:  # noqa: BLE001 - StopIteration with the result, or the error of a call that has ended
        turns.end(step_began_s)
        return
    arriving._asyncio_future_blocking = False
    arriving.add_done_callback(partial(_go_on, steps, turns, began_s))
