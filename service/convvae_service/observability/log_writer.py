"""The thread that writes the log: many lines at once, and no call waits for it."""

import os
import select
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

__all__ = ["LogWriter"]

# Lines that wait to be written. Beyond that, new lines are dropped.
_MAX_LINES = 10_000
# Lines that come within this time after the first one are written together with it.
_GATHER_S = 0.01
_MAX_WAIT_S = 1.0


class LogWriter:
    """A thread that writes text to a file descriptor, in the order in which the text comes.

    Nobody waits for the file. If it takes nothing (a pipe that is full or has lost its reader, a full disk),
    lines are dropped and counted. As soon as it takes text again, a line says how many were dropped.

    Args:
        fd: The file descriptor. It stays open.
        encoding: Encoding of the text. Characters that it lacks are escaped.
        dropped_line: Returns the line that tells a number of dropped lines.
    """

    def __init__(self, fd: int, *, encoding: str, dropped_line: Callable[[int], str]) -> None:
        self._fd = fd
        self._encoding = encoding
        self._dropped_line = dropped_line
        # An event is set when all text before it has been written or dropped. None ends the thread.
        self._queue: SimpleQueue[str | threading.Event | None] = SimpleQueue()
        self._count_lock = threading.Lock()
        self._dropped = 0
        self._told = 0
        self._torn = False
        # A daemon does not keep the process alive when the file takes nothing.
        threading.Thread(target=self._run, name="log", daemon=True).start()

    @property
    def dropped(self) -> int:
        """Number of lines that were dropped since the start."""
        return self._dropped

    def write(self, text: str) -> None:
        """Write whole lines, within some 10 ms. Never waits, and never raises an error."""
        if self._queue.qsize() < _MAX_LINES:
            self._queue.put(text)
        else:
            self._drop(text.count("\n"))

    def flush(self) -> None:
        """Wait until all text so far has been written or dropped, for 1 s at most."""
        done = threading.Event()
        self._queue.put(done)
        done.wait(_MAX_WAIT_S)

    def close(self) -> None:
        """End the thread after all text so far. The file must stay open until then: call `flush` first."""
        self._queue.put(None)

    def _drop(self, lines: int) -> None:
        with self._count_lock:
            self._dropped += lines

    def _run(self) -> None:
        items: list[str | threading.Event | None] = []
        while None not in items:
            # A sleep takes half the processor time of being woken, so only an idle log waits to be woken.
            first = [] if items else [self._queue.get()]
            time.sleep(_GATHER_S)
            items = first + [self._queue.get() for _ in range(self._queue.qsize())]
            texts = [item for item in items if isinstance(item, str)]
            try:
                self._write_all("".join(texts))
            except Exception:  # noqa: BLE001 - no error may end the log
                self._drop(sum(text.count("\n") for text in texts))
            for item in items:
                if isinstance(item, threading.Event):
                    item.set()

    def _write_all(self, text: str) -> None:
        if not text:
            return
        new = self._dropped - self._told
        if new and not self._write(self._dropped_line(new)):
            self._told += new
        self._drop(self._write(text))

    def _write(self, text: str) -> int:
        """Return how many lines of the text the file did not take: none, unless there was an error."""
        # The rest of a line that was written in part is lost.
        data = ("\n" * self._torn + text).encode(self._encoding, "backslashreplace")
        rest = memoryview(data)
        num_written = 0
        while num_written < len(data):
            try:
                num_written += os.write(self._fd, rest[num_written:])
            except BlockingIOError:
                # Another process that shares the pipe has made it non-blocking.
                poll = select.poll()
                poll.register(self._fd, select.POLLOUT)
                poll.poll()
            except OSError:
                break
        if num_written:
            self._torn = not data.endswith(b"\n", 0, num_written)
        return min(data.count(b"\n", num_written), text.count("\n"))
