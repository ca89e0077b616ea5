"""Windows of load, in turn over several servers, each beside a window of bare ONNX Runtime."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from bench.serving.bare import work_of
from bench.serving.callers import Callers
from bench.serving.cell import Cell
from bench.serving.conversation import Conversation
from bench.serving.processes import cpu_s
from bench.serving.server import Server

__all__ = ["Window", "measure"]

# A window of bare ONNX Runtime relative to one of a server; it has no callers that could vary.
BARE_SHARE = 0.4


@dataclass(frozen=True, kw_only=True)
class Window:
    """The figures of one server in one window.

    Attributes:
        cpu_us: Processor microseconds of the server's process tree for a row.
        bare_us: The same of bare ONNX Runtime, in batches of the size that the server ran.
        batch_rows: Mean rows of a batch; None if the server does not tell.
        rows_per_s: Rows answered in a second.
        latencies_ms: From request to reply, as callers see them.
        caller_us: Processor microseconds of the callers for a call.
        failed: Calls that failed; a window with any is no measurement.
        errors: A few of the messages.
    """

    cpu_us: float
    bare_us: float
    batch_rows: float | None
    rows_per_s: float
    latencies_ms: list[float]
    caller_us: float
    failed: int
    errors: list[str]


def measure(
    cell: Cell, servers: Sequence[Server], bare: Conversation, *, pairs: int, seconds: float
) -> Iterator[tuple[str, Window]]:
    """Yield `pairs` windows of each server by its name; each round goes the other way."""
    with ExitStack() as stack:
        callers = [stack.enter_context(server.callers(cell)) for server in servers]
        contenders = list(zip(servers, callers, strict=True))
        for pair in range(pairs):
            for server, calling in contenders if pair % 2 == 0 else reversed(contenders):
                yield server.name, load(cell, server, calling, bare, seconds)


def load(cell: Cell, server: Server, callers: Callers, bare: Conversation, seconds: float) -> Window:
    """Let the callers call for `seconds`, then run bare on batches of the size that was seen.

    The server is idle before the first call and after the last, so that its work is that of these calls.
    """
    batches_before, cpu_before_s = server.batches(), cpu_s(server.pid)
    report = callers.ask({"seconds": seconds})
    spent_s = cpu_s(server.pid) - cpu_before_s
    batch_rows = server.batches().since(batches_before)
    calls = len(report["latencies_ms"])
    rows = calls * cell.rows
    work, bare_us = work_of(cell), 0.0
    if work:
        size = round(batch_rows) if batch_rows else cell.rows
        question = {"work": work, "rows": size, "seconds": BARE_SHARE * seconds}
        bare_us = bare.ask(question)["cpu_us_per_row"]
    return Window(
        cpu_us=1e6 * spent_s / rows,
        bare_us=bare_us,
        batch_rows=batch_rows,
        rows_per_s=rows / report["elapsed_s"],
        latencies_ms=report["latencies_ms"],
        caller_us=1e6 * report["caller_cpu_s"] / calls,
        failed=report["failed"],
        errors=report["errors"],
    )
