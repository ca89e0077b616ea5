"""The way back to an event loop: it awaits calls that end in other threads."""

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol
from weakref import WeakKeyDictionary, ref

from convvae_service.calls.running_call import RunningCall

__all__ = ["run_on_loop"]


class _Prepare(Protocol):
    def __call__(self, *, reply: Callable[[Any], None]) -> RunningCall:
        """Return a call that gives its answer to `reply`."""


class _Mailbox:
    """Answers on their way to one event loop. It is woken once for all answers of a batch."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        # A strong reference would keep the loop in the table of mailboxes.
        self._loop = ref(loop)
        self._thread_id = threading.get_ident()
        self._answers: deque[tuple[asyncio.Future[Any], Any]] = deque()
        self._woken = False

    def put(self, future: "asyncio.Future[Any]", answer: Any) -> None:
        """Deliver an answer, from any thread."""
        loop = self._loop()
        if loop is None or loop.is_closed():
            # Nobody waits for the answer.
            return
        if threading.get_ident() == self._thread_id:
            _settle(future, answer)
            return
        self._answers.append((future, answer))
        # None is missed: the loop resets this before it looks.
        if self._woken:
            return
        self._woken = True
        # The loop may be closed at this moment.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._woken = False
        while self._answers:
            _settle(*self._answers.popleft())


def _settle(future: "asyncio.Future[Any]", answer: Any) -> None:
    # The caller may have left meanwhile.
    if not future.done():
        future.set_result(answer)


_mailboxes: WeakKeyDictionary[asyncio.AbstractEventLoop, _Mailbox] = WeakKeyDictionary()


async def run_on_loop(prepare: _Prepare) -> Any:
    """Run a call, and return its answer in the event loop that awaits it.

    Args:
        prepare: Prepares the call, given the function that takes its answer: `CallRunner.prepare` with all
            other arguments.

    Raises:
        CancelledError: The caller left, or its deadline passed. The call is abandoned.
    """
    loop = asyncio.get_running_loop()
    mailbox = _mailboxes.get(loop)
    if mailbox is None:
        mailbox = _mailboxes[loop] = _Mailbox(loop)
    future: asyncio.Future[Any] = loop.create_future()
    call = prepare(reply=partial(mailbox.put, future))
    # It holds the request, which the call drops when it has read it.
    del prepare
    call.start()
    try:
        return await future
    except asyncio.CancelledError:
        call.abandon()
        # Always raise it again: gRPC would never free the memory of a call that hides it.
        raise
