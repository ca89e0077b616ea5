"""The output of a command on the standard streams, and the end of the command where that fails."""

import sys
from contextlib import suppress
from typing import Any, TextIO, cast

from convvae.program.streams import redirect_to_nowhere
from convvae_trainer.errors import BadConfig, OutputFailed

__all__ = [
    "check_utf8",
    "expendable",
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
        # The buffered text would fail again, at the latest when the interpreter ends.
        redirect_to_nowhere(self._stream)
        if self._is_required:
            raise OutputFailed(
                f"standard output cannot be written: {error.strerror}: the results are not complete"
            ) from None
        print_error(f"the screen cannot be written: {error.strerror}; the command goes on without it")
