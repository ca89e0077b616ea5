"""docs/security.md agrees with the settings, with the programs, and with the results of the attacks."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from convvae_service.settings.serve import ServeSettings

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "security.md").read_text()
RESULTS = ROOT / "tests" / "attack" / "results"
LIMITS = re.compile(r"^\| `(\w+)` \| ([\d.]+) \|", re.MULTILINE)


def figures(result: dict[str, Any]) -> str:
    """Return the largest memory and the longest p99 of all attacks of a program, and what is not met."""
    parts = result.get("servers") or result.get("request_compression") or {"": result}
    attacks = [found for part in parts.values() for found in part["attacks"].values()]
    peak_mb = max((found["peak_mb"] for found in attacks if "peak_mb" in found), default=0.0)
    p99_ms = max((found.get("honest_sample", {}).get("p99_ms", 0.0) for found in attacks), default=0.0)
    missed = [target for target, is_met in result["met"].items() if not is_met]
    return f"{peak_mb:.0f} MB, {p99_ms:.0f} ms" + "".join(f"; not met: {target}" for target in missed)


def table() -> list[str]:
    """Return the rows of the last table of the document."""
    rows = []
    for path in sorted(RESULTS.glob("grpcio/*.json")):
        result = json.loads(path.read_text())
        if '"peak_mb"' not in path.read_text():
            continue
        native = json.loads((RESULTS / "native" / path.name).read_text())
        date, load = result["date"][:10], result["load_average_1_5_15_min"]["before"][0]
        columns = (f"`{path.stem}`", figures(result), figures(native), f"{date}, load {load:.0f}")
        rows.append(f"| {' | '.join(columns)} |")
    return rows


def test_limits_are_those_of_the_settings() -> None:
    """Each limit has the default of its setting."""
    limits = LIMITS.findall(DOCUMENT)
    assert len(limits) > 15
    fields = ServeSettings.model_fields
    wrong = {name: value for name, value in limits if str(fields[name].default) != value}
    assert wrong == {}


def test_every_limit_of_callers_is_listed() -> None:
    """No limit of the settings on what callers may do is left out."""
    listed = {name for name, _ in LIMITS.findall(DOCUMENT)}
    # Limits on what the server itself does.
    own = {"max_batch_rows", "max_gpu_arena_bytes", "max_queue_delay_us", "max_connection_age_grace_s"}
    assert {name for name in ServeSettings.model_fields if name.startswith("max_")} <= listed | own


@pytest.mark.parametrize("flag", sorted(set(re.findall(r"--([a-z][a-z-]+)", DOCUMENT))))
def test_flags_exist(flag: str) -> None:
    """Every flag is a setting, or an option of the programs and commands that the document names."""
    name = flag.removeprefix("no-").replace("-", "_")
    assert name in ServeSettings.model_fields or name in {"out", "help"}


def test_programs_are_those_of_make_attack() -> None:
    """The table of programs and `make attack` name the same ones."""
    words = (ROOT / "Makefile").read_text().partition("ATTACKS ?= ")[2].partition("\n\n")[0]
    table = DOCUMENT.partition("| Program | Attacks |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == words.replace("\\", " ").split()


def test_figures_are_those_that_were_measured() -> None:
    """The last table is made from the result files. The message of a failure has the rows to paste."""
    rows = table()
    quoted = DOCUMENT.partition("| Program | `grpcio` | `native` |")[2].partition("\n\n")[0]
    assert quoted.splitlines()[2:] == rows, "\n".join(rows)
