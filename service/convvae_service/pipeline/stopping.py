"""SIGINT and SIGTERM as an exception in the main thread, so that a run cleans up after itself."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from convvae_service.pipeline.errors import Interrupted

__all__ = ["let_finish", "stop_on_signals"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Stop:
    """A handler: the first signal raises `Interrupted`, unless it is too late; the second ends all."""

    def __init__(self) -> None:
        self.too_late = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        del frame
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        if not self.too_late:
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


def let_finish() -> None:
    """From now on let the first signal pass: what `Interrupted` says, that nothing was written, is over."""
    for number in _SIGNALS:
        if isinstance(handler := signal.getsignal(number), _Stop):
            handler.too_late = True
