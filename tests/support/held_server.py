"""A server in memory that answers threads when the test says so, and the threads that call it."""

import threading
import time
from typing import Any

from convvae.calls.exchanges import ModelCache
from convvae.coalescing.small_call import Joinable
from convvae.coalescing.threads import ThreadCoalescer
from convvae.model_name import ModelName
from convvae.results import Encoded
from convvae.transport.scheduler import TimeLimit
from support.file_server import FileServer, encode_files
from support.waiting import wait_until

__all__ = ["NAME", "Caller", "Desk", "ended", "waiting"]

NAME = ModelName("m")


class Desk(FileServer):
    """A server whose requests wait for `release`, each within its time."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Semaphore(0)
        self.coalescer = ThreadCoalescer(self.send, ModelCache())

    def send(self, operation: Joinable, _name: ModelName, limit: TimeLimit) -> Encoded:
        """Send as `Client` does: block until the answer or the end of the time."""
        files = self.receive(operation)
        if not self.gate.acquire(timeout=limit.remaining_s()):
            raise limit.passed()
        return self.answer(files)

    def release(self, requests: int = 1000) -> None:
        """Let requests pass."""
        self.gate.release(requests)

    def in_gathering(self) -> int:
        """Return the number of calls that wait to be joined."""
        return sum(len(each.waiting) for each in self.coalescer._gatherings.values())


class Caller(threading.Thread):
    """A thread that makes one call."""

    def __init__(self, desk: Desk, *files: int, timeout_s: float = 20.0) -> None:
        super().__init__(daemon=True)
        self.desk, self.files, self.timeout_s = desk, files, timeout_s
        self.outcome: Any = None
        self.seconds = 0.0
        self.start()

    def run(self) -> None:
        """Call, and keep the rows or the error."""
        start = time.monotonic()
        try:
            answer = self.desk.coalescer.call(encode_files(*self.files), NAME, TimeLimit(self.timeout_s))
            self.outcome = answer.mean[:, 0].tolist()
        except Exception as error:  # noqa: BLE001 - the test reads it
            self.outcome = error
        self.seconds = time.monotonic() - start


def waiting(desk: Desk, *callers: tuple[int, ...], timeout_s: float = 20.0) -> list[Caller]:
    """Start callers that wait behind a request in flight, one after another."""
    started = []
    for files in callers:
        before = desk.in_gathering()
        started.append(Caller(desk, *files, timeout_s=timeout_s))
        wait_until(lambda before=before: desk.in_gathering() > before)  # type: ignore[misc]
    return started


def ended(callers: list[Caller]) -> list[Any]:
    """Wait for the ends of the calls, and return their outcomes."""
    for caller in callers:
        caller.join(20)
        assert not caller.is_alive()
    return [caller.outcome for caller in callers]
