"""The exit codes of all programs: `convvae`, `convvae-train`, `convvae-serve` and `convvae-embed`."""

from enum import IntEnum

__all__ = ["MEANINGS", "ExitCode", "stopped_by"]

_FIRST_SIGNAL_CODE = 128


class ExitCode(IntEnum):
    """How a program ended. A program that a signal stopped has 128 plus the signal's number instead."""

    DONE = 0
    FAILED = 1
    REFUSED = 2
    NO_ANSWER = 3


# The codes and their meanings, as the help of each program and the documents have them.
MEANINGS: dict[str, str] = {
    str(int(ExitCode.DONE)): "The work is done, or what was checked is well.",
    str(int(ExitCode.FAILED)): "The work began and failed, or what was checked is not well.",
    str(int(ExitCode.REFUSED)): "The command line or its input is wrong: the work was refused.",
    str(int(ExitCode.NO_ANSWER)): "A server did not answer: there is none, or it is overloaded or too slow.",
    f"{_FIRST_SIGNAL_CODE}+N": "Signal N stopped the program: 129 SIGHUP, 130 SIGINT, 143 SIGTERM.",
}


def stopped_by(signal_number: int) -> int:
    """Return the exit code of a program that a signal stopped, as a shell counts: 128 plus its number."""
    return _FIRST_SIGNAL_CODE + signal_number
