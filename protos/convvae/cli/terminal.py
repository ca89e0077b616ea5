"""The text that the command line writes: printable, in the words of the command line, and with an end."""

import os
import re
import sys

from convvae.program.streams import redirect_to_nowhere

__all__ = ["StandardOutputFailed", "complain", "in_command_words", "note", "printable", "say"]

# The words of the Python client and of the wire, and those of the command line.
_WORDS = (
    (re.compile(r"\btls=TLSConfig\(\)"), "--tls"),
    (re.compile(r"\ballow_insecure_token=True"), "--allow-insecure-token"),
    (re.compile(r"\broot_certificates="), "--tls-ca"),
    (re.compile(r"\bserver_name="), "--tls-server-name"),
    (re.compile(r"\btoken=(?!\w)"), "--token-file"),
    (re.compile(r"\btimeout_s\b"), "--timeout"),
    (re.compile(r"\bmax_in_flight\b"), "--max-in-flight"),
    (re.compile(r"\bmodel\.(?:name|version)\b"), "--model"),
    (re.compile(r"\b(?:Set|set|give) model=?(?= )"), "give --model"),
    (re.compile(r"\bmodel(?= is ')"), "--model"),
    (re.compile(r"\bnum_samples\b"), "--num-samples"),
    (re.compile(r"\bfirst_row\b"), "--first-row"),
    (re.compile(r"^(count|seed|temperature|target)\b(?=:| is)"), r"--\1"),
    (re.compile(r"^(--[a-z-]+): is\b"), r"\1 is"),
    (re.compile(r"\bListModels\b"), "convvae models"),
    (re.compile(r"\bGetModel\b"), "the description of the model"),
)


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


def in_command_words(text: str) -> str:
    """Return a message of the Python client in the words of the command line."""
    for pattern, words in _WORDS:
        text = pattern.sub(words, text)
    return text


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
