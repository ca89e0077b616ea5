"""What ends a run, what the user sees of it, and the exit code of the process.

    PipelineError        one line on stderr, no traceback
    ├── BadUse           2    options that do not go together
    ├── BadSink          2    the sink's name, folder or a file that is there already
    ├── BadModel         2    no such model or version, or nobody answers at the target
    ├── MissingExtra     2    a package is not installed; the message says which extra brings it
    └── RunFailed        1    something broke half way: disk full, service gone

    BadSource            2    raised by `convvae_service.images`
    Interrupted    128 + n    signal n; not an `Exception`, so that no library takes it for its own

Whichever it is, no file is left under the sink's name.
"""

import signal

__all__ = [
    "BadModel",
    "BadSink",
    "BadUse",
    "Interrupted",
    "MissingExtra",
    "PipelineError",
    "RunFailed",
]


class PipelineError(Exception):
    """Base of all errors of this package; the message says what to change."""

    exit_code = 2


class BadUse(PipelineError):
    """The options do not go together, or one is out of range."""


class BadSink(PipelineError):
    """Nothing can be written there."""


class BadModel(PipelineError):
    """The model cannot be used as asked."""


class MissingExtra(PipelineError):
    """A package is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed: pip install 'convvae[{extra}]'")


class RunFailed(PipelineError):
    """The run broke half way."""

    exit_code = 1


class Interrupted(BaseException):
    """A signal asked the run to stop."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}, nothing was written")
        self.exit_code = 128 + number
