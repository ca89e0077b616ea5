"""The standard streams of a process: they may be closed, and their readers may go away."""

import io
import os
import sys

__all__ = ["close_standard_streams", "open_standard_streams"]


def open_standard_streams() -> None:
    """Make the standard streams usable, even if the process started without them."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # Otherwise the next file or connection gets this number, and the output of libraries.
            os.open(os.devnull, os.O_RDWR)
    # They are None if they were closed.
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115 - for the whole process
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names of files may have characters that its encoding lacks. stderr escapes them already.
        sys.stdout.reconfigure(errors="backslashreplace")


def close_standard_streams() -> None:
    """Write what is left. A stream without a reader does not change the exit code."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            # The interpreter tries again when it ends, and then changes the exit code.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
