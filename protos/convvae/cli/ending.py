"""How a command ends after an error: its exit code, and its line on standard error."""

from convvae.cli.terminal import StandardOutputFailed
from convvae.errors import (
    AccessDenied,
    ConvvaeError,
    DeadlineExceeded,
    InvalidInput,
    MessageTooLarge,
    NotFound,
    NotPossible,
    TryLater,
    Unimplemented,
    VersionGone,
)
from convvae.program.exit_codes import ExitCode
from convvae.program.usage import WrongUsage

__all__ = ["ending"]

# The command would be refused again. A version that has gone is not wrong: its call began well.
_REFUSED = (AccessDenied, InvalidInput, MessageTooLarge, NotFound, NotPossible, Unimplemented, WrongUsage)


def ending(error: Exception) -> tuple[ExitCode, str] | None:
    """Return the exit code and the line for an error, or None for a fault of the program."""
    if isinstance(error, TryLater | DeadlineExceeded):
        return ExitCode.NO_ANSWER, str(error)
    if isinstance(error, _REFUSED) and not isinstance(error, VersionGone):
        return ExitCode.REFUSED, str(error)
    if isinstance(error, ConvvaeError | StandardOutputFailed):
        return ExitCode.FAILED, str(error)
    if isinstance(error, OSError):
        return ExitCode.FAILED, f"{error.filename or 'input or output'}: {error.strerror or error}"
    return None
