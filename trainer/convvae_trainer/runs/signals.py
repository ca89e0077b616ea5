"""Signals that ask a run to stop: they are noted, and the loop stops after the current step."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["noted_signals"]


@contextmanager
def noted_signals() -> Iterator[list[signal.Signals]]:
    """Yield a list to which SIGINT and SIGTERM are appended; a second signal has its usual effect."""
    noted: list[signal.Signals] = []
    before: dict[signal.Signals, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature is fixed
        noted.append(signal.Signals(number))
        signal.signal(number, before[signal.Signals(number)])

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.getsignal(number)
        signal.signal(number, note)
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
