"""The report of a run as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from bench.serving.summary import Spread

__all__ = ["report_of", "table"]

Rows = list[tuple[object, ...]]

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
RATIO_COLUMNS = ("cell", "server", "processor time", "rows/s", "p50", "p99")
IDLE_COLUMNS = ("server", "seconds until it serves", "resident, MiB")


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def report_of(result: Mapping[str, Any]) -> str:
    """Return the report of a result as it stands in the JSON file."""
    facts = f"{result['date']}, commit {result['commit']}, {result['hardware']}. `{result['command']}`"
    sections = [
        HEAD.format(title=result["figure"], facts=facts) + "\n" + table(COLUMNS, _cells(result["cells"]))
    ]
    if result["ratios"]:
        rows = table(RATIO_COLUMNS, _ratios(result["ratios"]))
        sections.append(f"## Relative to {result['reference']}\n\n{rows}")
    if result.get("idle"):
        rows = table(IDLE_COLUMNS, _idle(result["idle"]))
        sections.append(f"## One bundle, before the first call\n\n{rows}")
    if result.get("parts"):
        part_names = next(iter(result["parts"].values()))
        rows = table(("cell and server", *part_names), _parts(result["parts"]))
        sections.append(f"## Where the time goes, µs a row\n\n{rows}")
    if result["left_out"]:
        lines = "".join(f"- {name}: {why}\n" for name, why in result["left_out"].items())
        sections.append(f"## Not measured\n\n{lines}")
    return "\n".join(sections)


def _cells(cells: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Rows:
    rows: Rows = []
    for cell, servers in cells.items():
        for server, figures in servers.items():
            beyond, cpu, bare = (Spread(**figures[name]) for name in ("beyond_us", "cpu_us", "bare_us"))
            batch, rate = figures["batch_rows"] or "", f"{figures['rows_per_s']:,.0f}"
            latencies = (figures["p50_ms"], figures["p99_ms"])
            callers = f"{figures['caller_us']:.0f}"
            rows.append(
                (
                    cell,
                    server,
                    beyond,
                    cpu,
                    bare if bare.median else "",
                    batch,
                    rate,
                    *latencies,
                    callers,
                )
            )
    return rows


def _ratios(ratios: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Rows:
    return [
        (cell, name, *each.values()) for cell, servers in ratios.items() for name, each in servers.items()
    ]


def _idle(idle: Mapping[str, Any]) -> Rows:
    return [(name, Spread(**each["ready_s"]), Spread(**each["resident_mib"])) for name, each in idle.items()]


def _parts(parts: Mapping[str, Mapping[str, float]]) -> Rows:
    return [(name, *(f"{us:.1f}" for us in each.values())) for name, each in parts.items()]
