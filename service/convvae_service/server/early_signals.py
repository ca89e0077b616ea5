"""Signals at times without an event loop: while modules are imported, and while the process ends."""

import contextlib
import os
import select
import signal
from collections.abc import Callable
from types import FrameType

__all__ = ["end_on_signals", "stop_signals"]


def stop_signals() -> list[signal.Signals]:
    """Return the signals that stop a server. SIGHUP is not one of them if it is ignored, as under nohup."""
    numbers = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    return numbers


def end_on_signals(line: str, code: Callable[[int], int]) -> None:
    """From now on, end the process at a signal that stops it.

    Args:
        line: The beginning of the line on stderr; the name of the signal follows.
        code: Returns the exit code for the number of a signal.
    """

    def end(number: int, frame: FrameType | None) -> None:
        del frame
        # An exception would pass through an import that is half done, which may change or swallow it.
        with contextlib.suppress(OSError):
            # A pipe that is full would hold the process.
            if select.select((), (2,), (), 0)[1]:
                os.write(2, f"{line} {signal.Signals(number).name}\n".encode())
        os._exit(code(number))

    for number in stop_signals():
        signal.signal(number, end)
