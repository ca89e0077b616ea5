"""The callers of a server, in a process of their own: a thread and a connection for each.

    python -m bench.serving.callers HOST:PORT

Each line of its input is a question, answered by a line of JSON:

    {"request": {...}, "callers": 16}   connects the callers, and each makes one call; the answer is {}
    {"seconds": 1.0}                    each calls again and again; the answer comes after the last call
"""

import json
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from bench.serving.connection import CallFailed, Connection
from bench.serving.connections import connect
from bench.serving.request import Request

__all__ = ["Callers", "Tally"]


class Callers(Protocol):
    """The callers of one cell and server, connected."""

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Make calls for `{"seconds": ...}`, and return the report of a `Tally`."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Tally:
    """The results of the calls of some seconds."""

    def __init__(self, seconds: float) -> None:
        self._latencies_ms: list[float] = []
        self._errors: list[str] = []
        self._started_s, self._started_cpu_s = time.perf_counter(), time.process_time()
        self._last_s = self._started_s + seconds

    @property
    def open(self) -> bool:
        """Whether new calls may begin."""
        return time.perf_counter() < self._last_s

    def add(self, begun_s: float, error: Exception | None = None) -> None:
        """Count a call that began at `begun_s` of the performance counter and has ended now."""
        self._latencies_ms.append(round(1e3 * (time.perf_counter() - begun_s), 3))
        if error is not None:
            self._errors.append(f"{type(error).__name__}: {error}"[:500])

    def report(self) -> dict[str, Any]:
        """Return the figures, when the last call has ended."""
        return {
            "latencies_ms": self._latencies_ms,
            "elapsed_s": time.perf_counter() - self._started_s,
            "caller_cpu_s": time.process_time() - self._started_cpu_s,
            "failed": len(self._errors),
            "errors": self._errors[:3],
        }

    def call_in_threads(
        self, calls: Sequence[Callable[[], object]], failure: type[Exception]
    ) -> dict[str, Any]:
        """Repeat each call in a thread of its own, at least once, and return the report.

        After a `failure` a thread goes on; after an OSError its connection is of no use.
        """

        def repeat(call: Callable[[], object]) -> None:
            going = True
            while going:
                begun_s, error = time.perf_counter(), None
                try:
                    call()
                except (failure, OSError) as raised:
                    error = raised
                self.add(begun_s, error)
                going = self.open and not isinstance(error, OSError)

        threads = [threading.Thread(target=repeat, args=(call,)) for call in calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return self.report()


def main() -> None:
    """Answer each line of the input."""
    target = sys.argv[1]
    connections: list[Connection] = []
    for line in sys.stdin:
        question = json.loads(line)
        answer: dict[str, Any] = {}
        if "request" in question:
            request = Request.from_json(question["request"])
            connections = [connect(target, request) for _ in range(question["callers"])]
            for connection in connections:
                connection.call()
        else:
            for connection in connections:
                connection.renew()
            calls = [connection.call for connection in connections]
            answer = Tally(question["seconds"]).call_in_threads(calls, CallFailed)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
