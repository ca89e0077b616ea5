"""The last lines of `convvae-serve`: results on stdout, and an error that ends the process."""

import sys
from contextlib import suppress
from typing import NoReturn

from convvae.program.exit_codes import ExitCode
from convvae_service.printable import printable

__all__ = ["fail", "print_line"]


def print_line(text: str) -> None:
    """Print to stdout at once. A pipe without a reader, or a full disk, is an error."""
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except OSError as error:
        fail(f"stdout cannot be written: {error.strerror}: the output is not complete", code=ExitCode.FAILED)


def fail(message: str, *, code: ExitCode = ExitCode.REFUSED) -> NoReturn:
    """End the process with one line on stderr."""
    with suppress(OSError):
        sys.stderr.write(f"error: {printable(message)}\n")
        sys.stderr.flush()
    sys.exit(int(code))
