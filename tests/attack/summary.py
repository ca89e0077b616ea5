"""The results of the attacks as the last table of docs/security.md.

    python tests/attack/summary.py

It writes the rows again from the result files. A test fails while they differ.
"""

import json
from pathlib import Path
from typing import Any

__all__ = ["DOCUMENT", "with_results"]

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "security.md"
RESULTS = Path(__file__).parent / "results"
HEADER = "| Program | `grpcio` | `native` | Date |\n|---|---|---|---|\n"
# Seconds that are the figure of a program without memory and honest callers.
SECONDS = ("seconds_until_the_sound_version_is_served", "seconds", "drain_s")


def with_results(text: str) -> str:
    """Return the text of the document with the rows that the result files make."""
    before, header, rest = text.partition(HEADER)
    if not header:
        raise SystemExit(f"error: {DOCUMENT.name} has no table {HEADER.splitlines()[0]}")
    return before + header + "".join(f"{row}\n" for row in _rows()) + "\n" + rest.partition("\n\n")[2]


def _rows() -> list[str]:
    rows = []
    for path in sorted((RESULTS / "grpcio").glob("*.json")):
        result = json.loads(path.read_text())
        native = json.loads((RESULTS / "native" / path.name).read_text())
        date, load = result["date"][:10], result["load_average_1_5_15_min"]["before"][0]
        columns = (f"`{path.stem}`", _figures(result), _figures(native), f"{date}, load {load:.0f}")
        rows.append(f"| {' | '.join(columns)} |")
    return rows


def _figures(result: dict[str, Any]) -> str:
    """Return the largest memory and the longest p99 of all attacks of a program, and what is not met.

    For programs that measure times, it is the longest of these.
    """
    parts = result.get("servers") or result.get("request_compression") or {"": result}
    attacks = [found for part in parts.values() for found in part.get("attacks", {}).values()]
    if attacks:
        peak_mb = max((found["peak_mb"] for found in attacks if "peak_mb" in found), default=0.0)
        p99_ms = max((found.get("honest_sample", {}).get("p99_ms", 0.0) for found in attacks), default=0.0)
        figures = f"{peak_mb:.0f} MB, {p99_ms:.0f} ms"
    else:
        times_s = next(result[name] for name in SECONDS if name in result)
        longest_s = max(times_s.values()) if isinstance(times_s, dict) else times_s
        figures = f"{longest_s:.1f} s"
    missed = [target for target, is_met in result["met"].items() if not is_met]
    return figures + "".join(f"; not met: {target}" for target in missed)


if __name__ == "__main__":
    DOCUMENT.write_text(with_results(DOCUMENT.read_text()))
