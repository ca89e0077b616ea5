"""A server under measurement: its process, its callers, and the batches that it has run."""

import re
import urllib.request
from dataclasses import dataclass
from typing import Protocol

from bench.serving.callers import Callers
from bench.serving.cell import Cell
from bench.serving.coalescing import arguments_of
from bench.serving.conversation import Conversation
from bench.serving.ghz import GhzCallers
from bench.serving.messages import path_of, request_of
from bench.serving.request import Request

__all__ = ["Batches", "RunningServer", "Server", "callers_of"]

LATENT_DIMS = {"28x28x1": 32, "64x64x3": 64}
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

    def serves(self, cell: Cell) -> bool:
        """Return whether it can answer the cell's call."""

    def callers(self, cell: Cell) -> Callers:
        """Return callers that are connected and make this cell's call."""


def callers_of(target: str, request: Request, callers: int) -> Conversation:
    """Return callers on connections of their own, who have made one call each."""
    conversation = Conversation("callers", target)
    try:
        conversation.ask({"request": request.as_json(), "callers": callers})
    except BaseException:
        conversation.close()
        raise
    return conversation


@dataclass(frozen=True, kw_only=True)
class RunningServer:
    """A server of this project that runs.

    Attributes:
        name: In the report.
        target: HOST:PORT of its calls.
        metrics: HOST:PORT of its metrics; empty if it has none.
        pid: Its process.
        models: Its models by reference graphs.
    """

    name: str
    target: str
    pid: int
    models: dict[str, str]
    metrics: str = ""

    def batches(self) -> Batches:
        """Read the page of metrics."""
        if not self.metrics:
            return Batches()
        with urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=10) as page:
            found = _BATCHES.findall(page.read().decode())
        totals = {kind: sum(float(value) for each, _, value in found if each == kind) for kind, _, _ in found}
        return Batches(totals.get("count", 0.0), totals.get("sum", 0.0))

    def serves(self, cell: Cell) -> bool:
        """Return whether it has the graphs."""
        return cell.graph in self.models

    def callers(self, cell: Cell) -> Callers:
        """Return callers of the kind that the cell names."""
        model = self.models[cell.graph]
        if cell.via in ("Client", "AsyncClient"):
            return Conversation("coalescing", *arguments_of(cell, self.target, model))
        body = request_of(cell, model, LATENT_DIMS[cell.graph])
        if cell.via == "ghz":
            return GhzCallers(self.target, cell, body)
        return callers_of(self.target, Request(protocol="grpc", path=path_of(cell), body=body), cell.callers)
