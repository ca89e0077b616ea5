"""The errors that end a run, and the exit codes of the process.

    PipelineError        one line on stderr, no traceback
    ├── BadUse           2    options that contradict each other or are out of range
    ├── BadSink          2    the sink's name or folder is unusable, or the file exists
    ├── BadModel         2    no such model or version, or no server at the target
    ├── MissingExtra     2    a package is not installed; the message names the extra that installs it
    └── RunFailed        1    a failure during the run, such as a full disk or a lost service

    BadSource            2    raised by `convvae_service.images`
    Interrupted    128 + n    signal n; not an `Exception`, so that no library handles it

After each of them, there is no file under the sink's name.
"""

import signal

__all__ = [
    "RUN_THREADS",
    "BadModel",
    "BadSink",
    "BadUse",
    "Interrupted",
    "MissingExtra",
    "PipelineError",
    "RunFailed",
]


RUN_THREADS = "embed"  # the beginning of their names


class PipelineError(Exception):
    """The base of all errors of the pipeline. The message says what to change."""

    exit_code = 2


class BadUse(PipelineError):
    """Two options contradict each other, or one is out of range."""


class BadSink(PipelineError):
    """The sink cannot be written."""


class BadModel(PipelineError):
    """The model cannot be used with these options."""


class MissingExtra(PipelineError):
    """A package is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed: pip install 'convvae[{extra}]'")


class RunFailed(PipelineError):
    """The run failed after it had started."""

    exit_code = 1


class Interrupted(BaseException):
    """A signal stopped the run."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}, nothing was written")
        self.exit_code = 128 + number
