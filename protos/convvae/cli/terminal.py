"""The text that the command line writes: printable, in the words of the command line, and with an end."""

import os
import sys

from convvae.connection.words import in_command_words
from convvae.program.streams import redirect_to_nowhere

__all__ = ["StandardOutputFailed", "complain", "note", "printable", "say"]


class StandardOutputFailed(Exception):
    """Standard output cannot be written."""


def printable(text: object) -> str:
    r"""Return a text on one line, with escapes in place of what a terminal would act on, such as `\x1b`.

    Bytes of a file name that are not UTF-8 become `\xe9` and the like.
    """
    return "".join(char if char.isprintable() else _escape(char) for char in str(text))


def _escape(char: str) -> str:
    byte = ord(char) - 0xDC00
    if 0x80 <= byte <= 0xFF:
        # Python's stand-in for a byte that cannot be decoded.
        return f"\\x{byte:02x}"
    return char.encode("unicode_escape").decode()


def say(text: str) -> None:
    """Write lines to standard output.

    Raises:
        StandardOutputFailed: It is closed, its reader has gone, or its disk is full.
    """
    if sys.stdout is None:
        raise StandardOutputFailed("standard output is closed")
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except BrokenPipeError:
        redirect_to_nowhere(sys.stdout)
        raise StandardOutputFailed("the reader of standard output ended before the text did") from None
    except OSError as error:
        redirect_to_nowhere(sys.stdout)
        raise StandardOutputFailed(f"standard output: {error.strerror}") from None


def complain(text: object) -> None:
    """Write an error as one line to standard error, if it can be written."""
    note(f"error: {in_command_words(str(text))}")


def note(text: str) -> None:
    """Write one line to standard error, if it can be written."""
    line = f"{printable(text)}\n"
    try:
        os.write(2, line.encode(errors="backslashreplace"))
    except OSError:
        return
