"""The standard streams of a process: they may be closed, their reader may go away, their disk may be full."""

import io
import os
import sys
from contextlib import suppress
from typing import TextIO

__all__ = ["close_standard_streams", "open_standard_streams", "redirect_to_nowhere", "take_standard_numbers"]


def take_standard_numbers() -> None:
    """Open to nowhere the standard streams with which the process was not started.

    Otherwise the next file or connection gets the number of one, and with it the output of libraries.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def open_standard_streams() -> None:
    """Make the standard streams usable, also those with which the process was not started."""
    take_standard_numbers()
    # They are None if they were closed.
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115 - for the whole process
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names of files may have characters that its encoding lacks. stderr escapes them already.
        sys.stdout.reconfigure(errors="backslashreplace")


def close_standard_streams() -> None:
    """Write what is left. A stream that cannot be written does not change the exit code any more."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            redirect_to_nowhere(stream)


def redirect_to_nowhere(stream: TextIO) -> None:
    """Drop what a stream has not written yet, and all that follows.

    The interpreter tries to write it once more at its end, and a failure would change the exit code.
    """
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
