"""A call in progress, without an event loop.

Its coroutine runs in the thread that starts it, up to its first `wait`. The thread that has the result then
runs it on, up to the next one. So a call costs no task, and changes threads only where it has to.
"""

import threading
from collections.abc import Callable, Coroutine
from typing import Any

from convvae_service.calls.waiting import Awaited

__all__ = ["CallerLeft", "RunningCall", "drop_frames"]


class CallerLeft(BaseException):
    """Ends a call whose caller waits no longer. As with a cancellation, no handler may hide it."""


class RunningCall:
    """One call, run in steps. Only one thread runs it at a time; every method is safe to call from any.

    Args:
        coroutine: Handles the call; it awaits nothing but `wait`.
        on_end: Called once with the result of the coroutine, or with the exception that ended it:
            `CallerLeft` if the call was abandoned.
    """

    __slots__ = ("__weakref__", "_coroutine", "_interruption", "_lock", "_on_end", "_waits_for", "ended")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], on_end: Callable[[Any], None]) -> None:
        self.ended = False
        self._coroutine = coroutine
        self._on_end = on_end
        self._lock = threading.Lock()
        self._waits_for: Awaited[Any] | None = None
        self._interruption: BaseException | None = None

    def start(self) -> None:
        """Run the call until it waits for the first time, or ends."""
        self._run(self._interruption)

    def interrupt(self, error: BaseException) -> None:
        """Raise `error` where the call waits, or at its next wait. The first interruption counts.

        A call that has ended, or ends without another wait, is not interrupted.
        """
        with self._lock:
            if self.ended or self._interruption is not None:
                return
            self._interruption = error
            future, self._waits_for = self._waits_for, None
        if future is not None:
            future.cancel()
            self._run(error)

    def abandon(self) -> None:
        """End the call without an answer: the caller has left, or its deadline has passed."""
        self.interrupt(CallerLeft())

    def _resume(self, future: Awaited[Any]) -> None:
        with self._lock:
            # An interruption may have come first.
            if self._waits_for is not future:
                return
            self._waits_for = None
        self._run(None)

    def _run(self, error: BaseException | None) -> None:
        coroutine = self._coroutine
        try:
            while True:
                future = coroutine.send(None) if error is None else coroutine.throw(error)
                with self._lock:
                    error = self._interruption
                    if error is None:
                        self._waits_for = future
                        break
                future.cancel()
        except StopIteration as stop:
            outcome = stop.value
        except BaseException as raised:  # noqa: BLE001 - `on_end` decides what an error stands for
            outcome = raised
        else:
            # Not above: the call may run on in here, and its end may fail.
            future.add_done_callback(self._resume)
            return
        with self._lock:
            self.ended = True
            self._interruption = None
        on_end = self._on_end
        # The time limits keep a call that has ended for a while, but not its answer.
        del self._on_end
        on_end(outcome)
        if isinstance(outcome, BaseException):
            drop_frames(outcome)


def drop_frames(error: BaseException | None) -> None:
    """Free what the frames of an error hold, such as the request: frames and error hold each other."""
    while error is not None:
        error.__traceback__ = None
        error = error.__context__
