"""SIGINT and SIGTERM as an exception in the main thread, so that a run cleans up after itself."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from convvae_service.pipeline.errors import Interrupted

__all__ = ["hold_signals", "let_finish", "stop_on_signals"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Stop:
    """A handler: the first signal raises `Interrupted`, unless it is too late; the second ends all.

    While it is `held` the first is kept in `waiting` instead.
    """

    def __init__(self) -> None:
        self.too_late = False
        self.held = False
        self.waiting: int | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        del frame
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        if self.held:
            self.waiting = number
        elif not self.too_late:
            raise Interrupted(number)


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """Raise `Interrupted` in the block at the first signal; the second ends the process at once."""
    stop = _Stop()
    before = {number: signal.signal(number, stop) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def hold_signals() -> Iterator[None]:
    """Let the first signal wait for the end of the block: for what must be done whole or not at all.

    The second still ends the process at once.
    """
    stop = _current()
    if stop is None:
        yield
        return
    try:
        stop.held = True
        yield
    finally:
        stop.held = False
        if stop.waiting is not None and not stop.too_late:
            raise Interrupted(stop.waiting)


def let_finish() -> None:
    """From now on let the first signal pass: what `Interrupted` says, that nothing was written, is over."""
    stop = _current()
    if stop is not None:
        stop.too_late = True


def _current() -> _Stop | None:
    """Return the handler in force; None outside of `stop_on_signals` and after the first signal."""
    handler = signal.getsignal(_SIGNALS[0])
    return handler if isinstance(handler, _Stop) else None
