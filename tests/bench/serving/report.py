"""The report of a run as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from bench.serving.cell import Cell
from bench.serving.summary import Spread

__all__ = ["report_of", "table"]

HEAD = """\
# {title}

{facts}

Medians of interleaved windows, with the first and third quartile in brackets. *beyond bare* is the processor
time of the server's process tree for a row (for a call, if it has no rows), less that of bare `session.run`
in batches of the size that the server ran, window by window. *callers* is the processor time of the load
generator for a call.
"""
COLUMNS = (
    "cell",
    "server",
    "beyond bare, µs",
    "server, µs",
    "bare, µs",
    "batch",
    "rows/s",
    "p50, ms",
    "p99, ms",
    "callers, µs",
)


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def report_of(result: Mapping[str, Any]) -> str:
    """Return the report of a result as it stands in the JSON file."""
    facts = f"{result['date']}, commit {result['commit']}, {result['hardware']}. `{result['command']}`"
    parts = [HEAD.format(title=result["figure"], facts=facts), table(COLUMNS, list(_rows(result["cells"])))]
    if result.get("idle"):
        parts.append("## One bundle, before the first call\n")
        rows = [
            (name, Spread(**each["ready_s"]), Spread(**each["resident_mib"]))
            for name, each in result["idle"].items()
        ]
        parts.append(table(("server", "seconds until it serves", "resident, MiB"), rows))
    if result.get("parts"):
        parts.append("## Where the time goes, µs a row under a sampling profiler\n")
        names = list(next(iter(result["parts"].values())))
        rows = [(name, *(f"{each[part]:.1f}" for part in names)) for name, each in result["parts"].items()]
        parts.append(table(("cell and server", *names), rows))
    if result["left_out"]:
        parts.append("## Not measured\n")
        parts.append("".join(f"- {name}: {why}\n" for name, why in result["left_out"].items()))
    return "\n".join(parts)


def _rows(cells: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for cell, servers in cells.items():
        for server, figures in servers.items():
            has_rows = figures["bare_us"]["median"] > 0
            spreads = [Spread(**figures[name]) for name in ("beyond_us", "cpu_us", "bare_us")]
            failed = f" **{figures['failed']} failed**" if figures["failed"] else ""
            rows.append(
                (
                    Cell.of(cell),
                    server + failed,
                    spreads[0],
                    spreads[1],
                    spreads[2] if has_rows else "",
                    figures["batch_rows"] or "",
                    f"{figures['rows_per_s']:,.0f}",
                    figures["p50_ms"],
                    figures["p99_ms"],
                    f"{figures['caller_us']:.0f}",
                )
            )
    return rows
