"""A server under measurement: where it answers, its process, and the batches that it has run."""

import re
import urllib.request
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Batches", "RunningServer", "Server"]

_BATCHES = re.compile(r'^convvae_batch_rows_(sum|count)\{stage="(\w+)"\} (\S+)$', re.MULTILINE)


@dataclass(frozen=True)
class Batches:
    """Batches that a server has run so far, and their rows."""

    count: float = 0.0
    rows: float = 0.0

    def since(self, before: "Batches") -> float | None:
        """Return the mean rows of a batch since `before`; None if there was none."""
        count = self.count - before.count
        return (self.rows - before.rows) / count if count else None


class Server(Protocol):
    """A server under measurement."""

    @property
    def name(self) -> str:
        """Its name in the report."""

    @property
    def pid(self) -> int:
        """Its first process."""

    def batches(self) -> Batches:
        """Return the batches so far, of all stages."""


@dataclass(frozen=True, kw_only=True)
class RunningServer:
    """A server of this project that runs already.

    Attributes:
        name: In the report.
        target: HOST:PORT of its calls.
        metrics: HOST:PORT of its metrics; empty if it has none.
        pid: Its process.
    """

    name: str
    target: str
    pid: int
    metrics: str = ""

    def batches(self) -> Batches:
        """Read the page of metrics."""
        if not self.metrics:
            return Batches()
        with urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=10) as page:
            found = _BATCHES.findall(page.read().decode())
        totals = {kind: sum(float(value) for each, _, value in found if each == kind) for kind, _, _ in found}
        return Batches(totals.get("count", 0.0), totals.get("sum", 0.0))
