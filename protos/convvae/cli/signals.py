"""SIGINT, SIGTERM and SIGHUP as an exception, so that a command removes its unfinished file."""

import signal
from types import FrameType

from convvae.program.exit_codes import stopped_by

__all__ = ["Interrupted", "raise_on_signals"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal ended the command.

    Attributes:
        exit_code: 128 and the number of the signal, as a shell counts.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.exit_code = stopped_by(number)


def raise_on_signals() -> None:
    """Raise `Interrupted` at the first signal. The second one ends the process. Ignored ones stay ignored."""
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    del frame
    for each in _SIGNALS:
        if signal.getsignal(each) is _interrupt:
            signal.signal(each, signal.SIG_DFL)
    raise Interrupted(number)
