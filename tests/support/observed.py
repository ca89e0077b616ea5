"""Servers as seen from outside: their memory, metrics and errors."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from support.resident import resident_kib
from support.serving import ServerProcess

IDLE_TIMEOUT_S = 20.0


class ObservedServer(ServerProcess):
    """A server whose log of calls is read and dropped: hundreds of thousands would fill this process."""

    def _is_kept(self, line: str) -> bool:
        return '"message": "call"' not in line

    def resident_kib(self) -> int:
        """Return the memory that the process has."""
        return resident_kib(self.process.pid)

    def pending(self) -> dict[str, float]:
        """Return what is in the server now: calls, rows and bytes."""
        found = self.metrics()
        names = ("convvae_calls_in_flight", "convvae_queued_rows", "convvae_pending_bytes")
        return {name: found[name] for name in names}

    def calls(self, method: str) -> dict[str, int]:
        """Return the calls of a method that the server has counted, by status code."""
        counts = {}
        for name, value in self.metrics().items():
            if name.startswith("convvae_calls_total{") and f'method="{method}"' in name:
                counts[name.partition('code="')[2].partition('"')[0]] = int(value)
        return counts

    def faults(self) -> float:
        """Return how many calls the server has answered with a code that says that it is at fault."""
        codes = ('code="INTERNAL"', 'code="UNKNOWN"')
        return sum(
            value
            for name, value in self.metrics().items()
            if name.startswith("convvae_calls_total{") and any(code in name for code in codes)
        )

    def wait_idle(self) -> dict[str, float]:
        """Wait until nothing is pending, and return what is still pending when that takes too long."""
        deadline_s = time.monotonic() + IDLE_TIMEOUT_S
        while any((found := self.pending()).values()) and time.monotonic() < deadline_s:
            time.sleep(0.05)
        return found


@contextmanager
def observed(
    kind: type[ObservedServer], models: Path, *flags: str, environ: Mapping[str, str] | None = None
) -> Iterator[ObservedServer]:
    """Run a server for the length of a `with` block."""
    server = kind(models, *flags, environ=environ)
    try:
        server.wait_for("serving")
        yield server
    finally:
        server.stop()
