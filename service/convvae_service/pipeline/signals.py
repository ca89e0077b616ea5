"""SIGINT and SIGTERM as an exception in the main thread, so that a run removes its unfinished file."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from convvae_service.pipeline.errors import Interrupted

__all__ = ["defer_signals", "ignore_first_signal", "interrupt_on_signals"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


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
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        if self.defers:
            self.deferred = number
        elif not self.ignores:
            raise Interrupted(number)


@contextmanager
def interrupt_on_signals() -> Iterator[None]:
    """Raise `Interrupted` in the block at the first signal. The second signal ends the process at once."""
    handler = _Handler()
    before = {number: signal.signal(number, handler) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


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
    handler = signal.getsignal(_SIGNALS[0])
    return handler if isinstance(handler, _Handler) else None
