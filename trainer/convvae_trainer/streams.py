"""The standard streams: they may be closed, their reader may go away, and their disk may be full."""

import os
import sys
from contextlib import suppress
from typing import Any, TextIO, cast

from convvae_trainer.errors import BadConfig, OutputFailed

__all__ = [
    "check_utf8",
    "close_standard_streams",
    "expendable",
    "open_standard_streams",
    "print_error",
    "printable",
    "required_stdout",
]


def printable(text: str) -> str:
    r"""Return `text` with control characters, line breaks and bytes that are not UTF-8 as `\n`, `\x1b`."""
    if text.isprintable():
        return text
    from convvae_service.images import printable as escaped

    return escaped(text)


def check_utf8(name: str) -> None:
    """Raise `BadConfig` if a name has bytes that are not UTF-8, which the JSON files of a run cannot hold."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise BadConfig(
            f"the name {name} is not UTF-8: rename it, or give a link with another name"
        ) from None


def print_error(line: str) -> None:
    """Print one line to stderr, if that can be written."""
    with suppress(OSError, ValueError):
        print(printable(line), file=sys.stderr, flush=True)  # noqa: T201 - the last line of a command


def open_standard_streams() -> None:
    """Open the standard streams with which the process was not started, to nowhere."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # Otherwise the next file gets this number, and the output of libraries.
            os.open(os.devnull, os.O_RDWR)
    # They are None if they were closed.
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115 - for the whole process
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    if hasattr(sys.stdout, "reconfigure"):
        # The encoding may lack characters of a name. stderr escapes them already.
        sys.stdout.reconfigure(errors="backslashreplace")


def close_standard_streams() -> None:
    """Write what is left. A stream that cannot be written does not change the exit code any more."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            _redirect_to_nowhere(stream)


def expendable(stream: TextIO) -> TextIO:
    """Return a stream for a command that goes on without it; one line on stderr then says so."""
    return cast(TextIO, _Stream(stream, is_required=False))


def required_stdout() -> TextIO:
    """Return stdout for the results of a command, which raises `OutputFailed` if it cannot be written."""
    return cast(TextIO, _Stream(sys.stdout, is_required=True))


class _Stream:
    """A text stream with another behaviour where writing fails. All else is as in the stream below."""

    def __init__(self, stream: TextIO, *, is_required: bool) -> None:
        self._stream = stream
        self._is_required = is_required

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._fail(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        # What is buffered would fail again, at the latest when the interpreter ends.
        _redirect_to_nowhere(self._stream)
        if self._is_required:
            raise OutputFailed(
                f"standard output cannot be written: {error.strerror}: the results are not complete"
            ) from None
        print_error(f"the screen cannot be written: {error.strerror}; the command goes on without it")


def _redirect_to_nowhere(stream: TextIO) -> None:
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
