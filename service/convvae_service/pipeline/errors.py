"""The errors that end a run, and the exit codes of the process.

    PipelineError        one line on stderr, no traceback
    ├── BadUse           2    options that contradict each other or are out of range
    ├── BadSink          2    the sink's name or folder is unusable, or the file exists
    ├── BadModel         2    no such model or version
    ├── BadCluster       2    no Ray cluster at the address, or it lacks what the run needs
    ├── MissingExtra     2    a package is not installed; the message names the extra that installs it
    └── RunFailed        1    a failure during the run, such as a full disk
        └── NoAnswer     3    the service does not answer, at the start or during the run

    BadSource            2    raised by `convvae_service.images`
    Interrupted    128 + n    signal n; not an `Exception`, so that no library handles it

After each of them, there is no file under the sink's name. A folder keeps its complete parts, and the message
says how many rows they have.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from convvae.program.exit_codes import ExitCode, stopped_by

__all__ = [
    "RUN_THREADS",
    "BadCluster",
    "BadModel",
    "BadSink",
    "BadUse",
    "Interrupted",
    "MissingExtra",
    "NoAnswer",
    "PipelineError",
    "RunFailed",
    "failure_text",
    "what_is_kept",
]


RUN_THREADS = "embed"  # the beginning of their names


class PipelineError(Exception):
    """The base of all errors of the pipeline. The message says what to change."""

    exit_code = int(ExitCode.REFUSED)


class BadUse(PipelineError):
    """Two options contradict each other, or one is out of range."""


class BadSink(PipelineError):
    """The sink cannot be written."""


class BadModel(PipelineError):
    """The model cannot be used with these options."""


class BadCluster(PipelineError):
    """The Ray cluster cannot be used."""


class MissingExtra(PipelineError):
    """A package is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed: pip install 'convvae[{extra}]'")


class RunFailed(PipelineError):
    """The run failed after it had started."""

    exit_code = int(ExitCode.FAILED)


class NoAnswer(RunFailed):
    """The service does not answer, or answers that it is overloaded."""

    exit_code = int(ExitCode.NO_ANSWER)


class Interrupted(BaseException):
    """A signal stopped the run."""

    def __init__(self, number: int, kept: str = "") -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}{kept or ', nothing was written'}")
        self.number = number
        self.exit_code = stopped_by(number)


def failure_text(error: OSError | MemoryError) -> str:
    """Return what the system has refused, as a message."""
    if isinstance(error, MemoryError):
        return "memory ran out: give smaller --batch-rows or --threads"
    return f"{error.filename or 'input or output'}: {error.strerror or error}"


class _Kept(Protocol):
    @property
    def kept(self) -> str: ...


@contextmanager
def what_is_kept(output: _Kept) -> Iterator[None]:
    """Say in errors of the block what is on disk, if the output keeps something.

    Args:
        output: Its `kept` is the end of the message, or "".

    Raises:
        RunFailed: The system has refused something, or memory ran out.
    """
    try:
        yield
    except Interrupted as error:
        raise Interrupted(error.number, f"; {output.kept}" if output.kept else "") from None
    except (PipelineError, ValueError) as error:
        from convvae_service.images import SourceChanged

        # A changed source is not continued. The class of the error stays: it decides the exit code.
        if isinstance(error, SourceChanged):
            error.args = (f"{error}: start anew with the whole of it",)
        elif output.kept:
            error.args = (f"{error}; {output.kept}",)
        raise
    except (OSError, MemoryError) as error:
        raise RunFailed(failure_text(error) + (f"; {output.kept}" if output.kept else "")) from None
