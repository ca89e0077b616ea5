"""What can go wrong in training and export, and what the caller sees of it.

TrainerError            one line on the screen, no traceback; `exit_code` of the process
├── BadConfig           a setting is unknown, out of range or does not fit another one
├── BadData             the data set is missing, damaged or of no usable shape
├── BadRun              the run folder or a checkpoint in it cannot be used as asked
├── MissingExtra        a package is not installed; the message says which extra brings it
├── ExportFailed        the graphs are not what PyTorch computes; nothing was published
└── Interrupted         stopped by Ctrl-C or SIGTERM after a checkpoint was saved
"""

import signal

__all__ = ["BadConfig", "BadData", "BadRun", "ExportFailed", "Interrupted", "MissingExtra", "TrainerError"]


class TrainerError(Exception):
    """Base of all errors of this package; the message says what to change."""

    exit_code = 2


class BadConfig(TrainerError):
    """A setting is unknown, out of range or does not fit another one."""


class BadData(TrainerError):
    """The data set is missing, damaged or of no usable shape."""


class BadRun(TrainerError):
    """The run folder or a checkpoint in it cannot be used as asked."""


class MissingExtra(TrainerError):
    """A package is not installed.

    Args:
        package: The import name that was not found.
        extras: The extras of which one brings it.
    """

    def __init__(self, package: str, *extras: str) -> None:
        ways = " or ".join(f'pip install "convvae[{extra}]"' for extra in extras or ("trainer",))
        super().__init__(f"{package} is not installed: {ways}")


class ExportFailed(TrainerError):
    """The exported graphs are not what PyTorch computes; nothing was published."""

    exit_code = 1


class Interrupted(TrainerError):
    """Training was stopped by a signal; a checkpoint holds all of it.

    Args:
        number: The signal, n; the process ends with 128 + n.
        step: Where training goes on.
        resume: The command that goes on, where it is known.
    """

    def __init__(self, number: int, *, step: int, resume: str = "") -> None:
        text = f"stopped by {signal.Signals(number).name} at step {step}; a checkpoint is saved"
        super().__init__(f"{text}: {resume}" if resume else text)
        self.number = number
        self.step = step
        self.exit_code = 128 + number
