"""The signals that stop a command: SIGINT, SIGTERM, and SIGHUP unless it is ignored, as under nohup.

A command handles them in three ways, one after the other. While modules are imported, a signal ends the
process at once. After that it is an exception, so that half-made files are removed. In training it is noted,
and the loop saves a checkpoint.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from convvae.program.exit_codes import stopped_by

__all__ = ["Stopped", "end_on_signals", "noted_signals", "raise_on_signals"]


class Stopped(SystemExit):
    """A signal stopped the command. The exit code of the process is 128 plus the number of the signal.

    Attributes:
        number: The signal.
        text: The line for the user.
    """

    def __init__(self, number: int) -> None:
        super().__init__(stopped_by(number))
        self.number = signal.Signals(number)
        self.text = f"stopped by {self.number.name}"


def end_on_signals() -> None:
    """From now on, end the process at a signal, with one line."""

    def end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature is fixed
        # An exception would pass through an import that is half done, which may change or swallow it.
        with suppress(OSError):
            os.write(2, f"stopped by {signal.Signals(number).name}\n".encode())
        os._exit(stopped_by(number))

    _handle(end)


def raise_on_signals() -> None:
    """From now on, raise `Stopped` at the first signal, and end the process at the second one."""

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature is fixed
        end_on_signals()
        if number == signal.SIGHUP:
            # A terminal that is closed sends it twice: the shell, and the system when the shell ends.
            signal.signal(number, signal.SIG_IGN)
        raise Stopped(number)

    _handle(stop)


@contextmanager
def noted_signals() -> Iterator[list[signal.Signals]]:
    """Yield a list to which signals are appended; a second SIGINT or SIGTERM has its usual effect."""
    noted: list[signal.Signals] = []
    before: dict[int, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature is fixed
        noted.append(signal.Signals(number))
        if number != signal.SIGHUP:
            signal.signal(number, before[number])

    before |= _handle(note)
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _handle(handler: Callable[[int, FrameType | None], None]) -> dict[int, Any]:
    """Set the handler of all signals that stop a command, and return the handlers before."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    return {number: signal.signal(number, handler) for number in numbers}
