"""A study in a process of its own, and its child processes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from support.ended import Ended

# Settings with which a run takes a second.
QUICK = [
    *("--width", "4", "--hidden", "16", "--latent-dim", "4", "--batch-size", "16"),
    *("--precision", "fp32", "--threads", "1", "--device", "cpu"),
]
TIMEOUT_S = 280


class StudyProcess:
    """`convvae-train study` with these arguments, started in its own process."""

    def __init__(self, *arguments: str, cwd: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "convvae_trainer", "study", *arguments],
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def children(self) -> list[int]:
        """Return the process numbers of its children."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(word) for word in path.read_text().split()]

    def wait(self) -> Ended:
        """Return the end of the process."""
        try:
            texts = self.process.communicate(timeout=TIMEOUT_S)
        finally:
            self.process.kill()
        return Ended(self.process.returncode, *texts)

    def stop(self, number: signal.Signals) -> Ended:
        """Send a signal; return the end of the process."""
        self.process.send_signal(number)
        return self.wait()


def is_running(pid: int) -> bool:
    """Return whether there is a process with this number that has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def kill(pid: int) -> None:
    """Kill a process."""
    os.kill(pid, signal.SIGKILL)
