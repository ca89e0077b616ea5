"""SIGINT and SIGTERM as an exception in the main thread, so that a run cleans up after itself."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from convvae_service.pipeline.errors import Interrupted

__all__ = ["stop_on_signals"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """Raise `Interrupted` in the block at the first signal; the second ends the process at once."""

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        del frame
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        raise Interrupted(number)

    before = {number: signal.signal(number, stop) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
