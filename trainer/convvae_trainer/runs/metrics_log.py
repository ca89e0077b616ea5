"""The metrics of a run, one JSON object per line. A line that cannot be written does not end the run."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from convvae_trainer.console import say
from convvae_trainer.runs.lock import RunLock

__all__ = ["MetricsLog"]


class MetricsLog:
    """Appends lines to a file. Those that a full disk refuses stay in memory, for the next attempt.

    Args:
        path: The file. It ends with a whole line.
        console: Shows once that the file cannot be written, and once that it can be again.
        lock: The lock of the run folder; None: the folder is not locked.
    """

    def __init__(self, path: Path, *, console: Console, lock: RunLock | None) -> None:
        self._path = path
        self._console = console
        self._lock = lock
        self._unwritten = b""
        self._is_failing = False

    def append(self, values: Mapping[str, Any]) -> None:
        """Append one line."""
        self._unwritten += (json.dumps(values, allow_nan=False) + "\n").encode()
        try:
            if self._lock is not None:
                self._lock.check_in_place()
            _append(self._path, self._unwritten)
        except OSError as error:
            if not self._is_failing:
                say(self._console, f"{self._path} cannot be written: {error.strerror}; training goes on")
            self._is_failing = True
            return
        self._unwritten = b""
        if self._is_failing:
            say(self._console, f"{self._path} is written again, without a gap")
        self._is_failing = False


def _append(path: Path, data: bytes) -> None:
    """Append all of `data`, or nothing: half a line would hide all lines after it."""
    with path.open("ab", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            while data:
                data = data[file.write(data) :]
        except OSError:
            with suppress(OSError):
                file.truncate(size)
            raise
