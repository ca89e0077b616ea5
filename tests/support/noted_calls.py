"""Calls with weak references to all their parts, which show when each part is freed."""

import threading
from collections.abc import Callable
from typing import Any
from weakref import ref

import numpy as np
from numpy.typing import NDArray

from convvae_service.batching.batcher import Batcher
from convvae_service.calls.runner import CallRunner
from convvae_service.calls.running_call import CallerLeft
from convvae_service.calls.state import State
from convvae_service.calls.waiting import wait
from convvae_service.engine.stages import Rows, Stage
from convvae_service.errors import DeadlineExceeded
from convvae_service.observability.call import Call
from convvae_service.observability.metrics import Metrics
from support.waiting import TIMEOUT_S, wait_until

__all__ = ["Broken", "Kept", "Mailbox", "NotedCall", "Refs", "Reply", "Request"]

Refs = list["ref[Any]"]


class NotedCall(Call):
    """A call that can be referenced weakly."""


class Broken(Exception):
    """A fault of the service itself."""


class Request:
    """A request: 64 KiB of rows."""

    def __init__(self) -> None:
        self.rows = np.zeros((16, 4096), np.uint8)


class Reply:
    """The reply to it."""

    def __init__(self, results: NDArray[Any]) -> None:
        self.results = results


class Mailbox:
    """The end of the way back of one call: it holds the answer, as a front does until it is written."""

    def __init__(self, ended: threading.Event, answers: list[type]) -> None:
        self._ended = ended
        self._answers = answers
        self.answer: Any = None

    def put(self, answer: Any) -> None:
        self.answer = answer
        self._answers.append(type(answer))
        self._ended.set()


class Kept:
    """Makes calls with a batcher and a runner, and holds weak references to all that belongs to a call."""

    def __init__(self, batcher: Batcher) -> None:
        self.batcher = batcher
        self.runner = CallRunner(metrics=Metrics(), max_call_s=1000, state=State.SERVING)
        self.refs: Refs = []
        self.answers: list[type] = []
        self.runs = threading.Event()
        self.gate = threading.Event()
        self.stage = Stage("stage", self._compute)
        self.broken = Stage("broken", self._fail)
        self.gated = Stage("gated", self._wait)

    def note(self, thing: Any) -> Any:
        """Hold a weak reference to something, and return it."""
        self.refs.append(ref(thing))
        return thing

    def begin(self, handle: Callable[[Request, Call], Any], ended: threading.Event) -> "ref[Any]":
        """Start a call; the caller keeps no strong reference to any part of it."""
        call = self.note(NotedCall("Encode", "id-1"))
        mailbox = self.note(Mailbox(ended, self.answers))
        running = self.runner.prepare(call, handle, self.note(Request()), mailbox.put)
        running.start()
        # The limits hold the running call itself, but nothing through it.
        return ref(running)

    async def run(self, stage: Stage, request: Request) -> Rows:
        """Run the request's rows, as a handler does."""
        try:
            with self.batcher.admit(rows=len(request.rows)):
                return await wait(self.batcher.submit(stage, (self.note(request.rows),)))
        except BaseException as error:
            if not isinstance(error, DeadlineExceeded | CallerLeft):
                self.note(error)
            raise

    def assert_freed(self) -> None:
        """Check that nothing of the calls is left; a lane drops its batch a moment after the answers."""
        assert self.refs
        wait_until(lambda: not any(found() is not None for found in self.refs))
        assert self.runner.in_flight == 0
        assert (self.batcher.queued_rows, self.runner.pending.num_bytes) == (0, 0)

    def _compute(self, rows: Rows) -> Rows:
        return (self.note(rows[0] + 1),)

    def _fail(self, _: Rows) -> Rows:
        raise self.note(Broken("a graph that fails"))

    def _wait(self, rows: Rows) -> Rows:
        self.runs.set()
        assert self.gate.wait(TIMEOUT_S)
        return rows
