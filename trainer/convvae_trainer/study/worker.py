"""The child process of a study: it trains one run after the other, with data that it reads once.

    python -m convvae_trainer.study.worker DIR PARENT

It reads names of runs from standard input, one a line, and answers each with a line of JSON. Standard output
and standard error go to the log of the run. It ends at the end of its input, at a signal (a run in training
saves a checkpoint first), and when the process PARENT ends in whatever way.
"""

import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from convvae.program.exit_codes import stopped_by
from convvae_trainer.runs.signals import Stopped, end_on_signals, raise_on_signals

if TYPE_CHECKING:
    from convvae_trainer.study.training import StudyTrainer

__all__ = ["main"]

# From sys/prctl.h.
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Train the runs whose names come from standard input."""
    end_on_signals()
    folder, parent = Path(sys.argv[1]), int(sys.argv[2])
    _end_with(parent)
    answers = os.fdopen(os.dup(1), "w")
    # Nothing but answers goes to the study.
    os.dup2(2, 1)
    # A signal during these imports ends the process at once.
    from convvae_trainer.study.replies import Reply
    from convvae_trainer.study.training import StudyTrainer

    raise_on_signals()
    try:
        trainer = StudyTrainer(folder)
        for line in sys.stdin:
            name = line.strip()
            with _log(trainer.folder.log(name)) as log:
                reply = Reply(run=name, text=_trained(trainer, name, log))
            # The study may have been killed meanwhile.
            with suppress(OSError):
                answers.write(reply.to_line())
                answers.flush()
    except Stopped as stopped:
        end_on_signals()
        sys.exit(stopped.code)


def _end_with(parent: int) -> None:
    """Have the system send SIGTERM to this process when its parent ends, where it can (Linux)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(stopped_by(signal.SIGTERM))


@contextmanager
def _log(path: Path) -> Iterator[TextIO]:
    """Append what the block and the libraries print to the log of a run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", errors="backslashreplace", buffering=1) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        yield log


def _trained(trainer: "StudyTrainer", name: str, log: TextIO) -> str:
    """Train a run; return "", or in one line why it failed.

    Raises:
        Stopped: A signal stopped it.
    """
    from convvae_trainer.errors import Interrupted

    try:
        trainer.train(name, log)
    except Interrupted as stopped:
        log.write(f"{stopped}\n")
        raise Stopped(stopped.number) from None
    except Stopped as stopped:
        log.write(f"{stopped.text}\n")
        raise
    except Exception as error:  # noqa: BLE001 - whatever ends one run must not end the others
        traceback.print_exc(file=log)
        return " ".join(str(error).split()) or type(error).__name__
    return ""


if __name__ == "__main__":
    main()
