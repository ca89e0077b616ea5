"""The trial of a version in a process of its own, before this process loads it.

A graph can make ONNX Runtime compute for hours, take all memory or crash while a session is made, and nothing
stops that within a process. So a process with limits reads, verifies, loads and runs the version first, on
the CPU. It has a low priority, and where memory runs out, the system ends it first.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import Any

from convvae_service.bundle import Precision
from convvae_service.repository.version_folder import VersionFolder

__all__ = ["DEFAULT_LIMITS", "LoadLimits", "Trial", "TrialResult", "too_slow"]

# Time for the process to start and to end, beyond its limit.
_MARGIN_S = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadLimits:
    """The time to load and run a version once, and the memory of the process that tries this first."""

    timeout_s: float = 60.0
    max_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        if not (0 < self.timeout_s <= 86400 and 1 << 28 <= self.max_bytes <= 1 << 50):
            raise ValueError("the limits must be above 0 s, and at least 256 MiB")


DEFAULT_LIMITS = LoadLimits()


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialResult:
    """The result of a trial.

    Attributes:
        error: Why the version cannot be used; empty if it can.
        summary: The version in a few words.
        sha256: The checksum of the manifest that was tried.
        again: Whether the error says nothing about the version, so that another trial may succeed.
        fatal: Whether no version can be used on this machine.
    """

    error: str = ""
    summary: str = ""
    sha256: str = ""
    again: bool = False
    fatal: bool = False


class Trial:
    """One trial. `run` is called once; `stop` ends it from another thread."""

    def __init__(
        self, folder: VersionFolder, limits: LoadLimits, *, precision: Precision | None, every: bool
    ) -> None:
        """Describe a trial; nothing runs yet.

        Args:
            folder: The version's folder.
            limits: The limits of time and memory.
            precision: The graphs to try; None takes fp32 if the bundle has it, or else its first precision.
            every: Whether to try the graphs of every precision instead, and to verify the fingerprints of
                the training images, which no server needs.
        """
        self._limits = limits
        self._order = {
            "folder": str(folder.path),
            "model": folder.model,
            "version": folder.version,
            "precision": precision,
            "every": every,
            "timeout_s": limits.timeout_s,
            "max_bytes": limits.max_bytes,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False
        self._lock = threading.Lock()

    def run(self) -> TrialResult:
        """Try the version and return the result, within the limit of time and a margin."""
        try:
            process = self._start()
        except OSError as error:
            return TrialResult(
                error=f"cannot be tried: no process can be started ({error.strerror})", again=True
            )
        if process is None:
            return TrialResult(error="given up", again=True)
        try:
            answer, _ = process.communicate(timeout=self._limits.timeout_s + _MARGIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            answer = b""
        if process.returncode == 0:
            with contextlib.suppress(ValueError, TypeError):
                return TrialResult(**json.loads(answer))
        return self._result_of_end(process.returncode)

    def stop(self) -> None:
        """End the trial at once. Any thread may call this, also before and after `run`."""
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.kill()

    def _start(self) -> subprocess.Popen[bytes] | None:
        with self._lock:
            if self._stopped:
                return None
            self._process = subprocess.Popen(  # noqa: S603 - this program, and no shell
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "convvae_service.repository.trial_process",
                    json.dumps(self._order),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=_environment(),
            )
        return self._process

    def _result_of_end(self, code: int) -> TrialResult:
        if self._stopped:
            return TrialResult(error="given up", again=True)
        if code in (-signal.SIGALRM, -signal.SIGKILL, -signal.SIGXCPU):
            return TrialResult(error=too_slow(self._limits))
        if code < 0:
            name = signal.Signals(-code).name if -code in list(signal.Signals) else str(-code)
            return TrialResult(error=f"crashes ONNX Runtime ({name})")
        return TrialResult(error=f"cannot be tried: the process ended with code {code}")


def too_slow(limits: LoadLimits) -> str:
    """Return the error of a version that needs more than the limit of time."""
    limit = f"{limits.timeout_s:g} s"
    return f"did not load and run within {limit}: make its graphs smaller, or raise --load-timeout-s"


def _environment() -> dict[str, Any]:
    # The same modules as here, and no threads that the trial does not need.
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return {**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
