"""The errors of training and export, and what the user sees of them.

TrainerError            one line on the screen without a traceback; `exit_code` is that of the process
├── BadConfig           a setting is unknown or not allowed, or settings contradict each other
├── BadData             the data set is missing or damaged, or its images have an unusable shape
├── BadRun              the run folder or its checkpoint cannot be used for the command
├── MissingExtra        a package is not installed; the message names the extra that installs it
├── TrainingFailed      training cannot go on: steps are not finite, or another process has ended
├── RunsFailed          runs of a study failed; the others are finished
├── ExportFailed        graphs do not compute what they should, or cannot be written; nothing was published
├── OutputFailed        standard output cannot be written, so the results are not complete
└── Interrupted         a signal stopped the training; a checkpoint was saved
"""

import signal

from convvae.program.exit_codes import ExitCode, stopped_by

__all__ = [
    "BadConfig",
    "BadData",
    "BadRun",
    "ExportFailed",
    "Interrupted",
    "MissingExtra",
    "OutputFailed",
    "RunsFailed",
    "TrainerError",
    "TrainingFailed",
]


class TrainerError(Exception):
    """The base of all errors of this package. The message says what to change."""

    exit_code = int(ExitCode.REFUSED)


class BadConfig(TrainerError):
    """A setting is unknown or not allowed, or settings contradict each other."""


class BadData(TrainerError):
    """The data set is missing or damaged, or its images have an unusable shape."""


class BadRun(TrainerError):
    """The run folder or its checkpoint cannot be used for the command."""


class MissingExtra(TrainerError):
    """A package is not installed.

    Args:
        package: The import name of the package.
        extras: The extras that install it; any of them is enough. The default is `trainer`.
    """

    def __init__(self, package: str, *extras: str) -> None:
        commands = " or ".join(f'pip install "convvae[{extra}]"' for extra in extras or ("trainer",))
        super().__init__(f"{package} is not installed: {commands}")


class TrainingFailed(TrainerError):
    """Training cannot go on: steps are not finite, or another process of the run has ended."""

    exit_code = int(ExitCode.FAILED)


class RunsFailed(TrainerError):
    """Runs of a study failed; the others are finished."""

    exit_code = int(ExitCode.FAILED)


class ExportFailed(TrainerError):
    """The graphs do not compute what they should, or cannot be written; nothing was published."""

    exit_code = int(ExitCode.FAILED)


class OutputFailed(TrainerError):
    """Standard output cannot be written, so the results are not complete."""

    exit_code = int(ExitCode.FAILED)


class Interrupted(TrainerError):
    """A signal stopped the training; a checkpoint holds the whole state.

    Args:
        number: The number of the signal.
        step: The step at which training can continue.
        resume: The command that continues it, where it is known.
    """

    def __init__(self, number: int, *, step: int, resume: str = "") -> None:
        text = f"stopped by {signal.Signals(number).name} at step {step}; a checkpoint is saved"
        super().__init__(f"{text}: {resume}" if resume else text)
        self.number = number
        self.step = step
        self.exit_code = stopped_by(number)
