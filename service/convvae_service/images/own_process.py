"""A process of this package that works for its parent, and ends with it."""

import os
import subprocess
import sys
from collections.abc import Sequence
from multiprocessing import Pipe

__all__ = ["READY", "OwnProcess"]

# The program sends it first, when it can work.
READY = b"ready"


class OwnProcess:
    """A running program of this package, and the pipe to it.

    The program's first argument is the descriptor of its end of the pipe. It sends `READY`, and ends when the
    other end is closed. Its output is dropped, and a signal to the parent's process group misses it.

    Args:
        module: The module of the program.
        handles: Descriptors that it inherits. Their numbers are its further arguments.

    Raises:
        OSError: It cannot start.

    Attributes:
        pipe: The parent's end of the pipe.
    """

    def __init__(self, module: str, handles: Sequence[int] = ()) -> None:
        self.pipe, other = Pipe()
        self._is_ready = False
        try:
            with other:
                given = [other.fileno(), *handles]
                self._process = subprocess.Popen(  # noqa: S603 - the project's own program
                    [sys.executable, "-P", "-m", module, *map(str, given)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=given,
                    start_new_session=True,
                    # Its threads would reserve memory.
                    env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
                )
        except BaseException:
            self.pipe.close()
            raise

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def has_ended(self) -> bool:
        """Return whether it has ended, such as by a signal."""
        return self._process.poll() is not None

    def is_ready(self, timeout_s: float = 0.0) -> bool:
        """Return whether it can work, after at most `timeout_s`.

        Raises:
            OSError: It has ended before.
        """
        if not self._is_ready and self.pipe.poll(timeout_s):
            try:
                self._is_ready = self.pipe.recv_bytes() == READY
            except EOFError:
                raise OSError("the process has ended at its start") from None
        return self._is_ready

    def kill(self) -> None:
        """Kill it. A thread that reads the pipe gets `EOFError`."""
        self._process.kill()

    def end(self) -> None:
        """Kill it, and release the pipe."""
        self.pipe.close()
        self._process.kill()
        self._process.wait()
