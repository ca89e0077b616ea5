"""The signals that stop a run: SIGINT, SIGTERM, and SIGHUP, which a closed terminal sends.

Until a run starts they end the process at once, since there is nothing to remove. During the run they are an
exception in the main thread, so that the run removes its unfinished file.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from convvae_service.pipeline.errors import Interrupted

__all__ = ["defer_signals", "end_on_signals", "ignore_first_signal", "interrupt_on_signals", "stop_signals"]


def stop_signals() -> list[signal.Signals]:
    """Return the signals that stop a run. SIGHUP is not one of them if it is ignored, as under nohup."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    return numbers


class _Handler:
    """A handler that raises `Interrupted` at the first signal; the second one ends the process.

    Attributes:
        ignores: Whether the first signal has no effect, because the run is complete.
        defers: Whether the first signal is stored in `deferred` instead.
        deferred: Number of the stored signal, or None.
    """

    def __init__(self) -> None:
        self.ignores = False
        self.defers = False
        self.deferred: int | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        del frame
        for each in stop_signals():
            signal.signal(each, signal.SIG_DFL)
        if self.defers:
            self.deferred = number
        elif not self.ignores:
            raise Interrupted(number)


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in stop_signals()}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


@contextmanager
def end_on_signals() -> Iterator[None]:
    """End the process at a signal in the block, with one line on stderr.

    An exception would pass through an import that is half done, which may change or swallow it.
    """

    def end(number: int, frame: FrameType | None) -> None:
        del frame
        stopped = Interrupted(number)
        with suppress(OSError):
            os.write(2, f"error: {stopped}\n".encode())
        os._exit(stopped.exit_code)

    with _handled_by(end):
        yield


@contextmanager
def interrupt_on_signals() -> Iterator[None]:
    """Raise `Interrupted` in the block at the first signal. The second signal ends the process at once."""
    with _handled_by(_Handler()):
        yield


@contextmanager
def defer_signals() -> Iterator[None]:
    """Raise `Interrupted` only at the end of the block, for steps that must be complete or not start.

    The second signal still ends the process at once.
    """
    handler = _current()
    if handler is None:
        yield
        return
    try:
        handler.defers = True
        yield
    finally:
        handler.defers = False
        if handler.deferred is not None and not handler.ignores:
            raise Interrupted(handler.deferred)


def ignore_first_signal() -> None:
    """Ignore the first signal from now on: the message of `Interrupted` would be wrong after publication."""
    handler = _current()
    if handler is not None:
        handler.ignores = True


def _current() -> _Handler | None:
    """Return the active handler. It is None outside `interrupt_on_signals` and after the first signal."""
    handler = signal.getsignal(signal.SIGINT)
    return handler if isinstance(handler, _Handler) else None
