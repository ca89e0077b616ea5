"""docs/operations.md agrees with the settings, the results of measurements, the alerts and the log."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from convvae.program.settings_page import BEGIN, END, with_tables
from convvae_service.errors import StartupError
from convvae_service.server.watchdog import PARTS
from convvae_service.settings.loader import load_settings
from convvae_service.settings.numbers import allowed_numbers, unit_of
from convvae_service.settings.serve import ServeSettings
from convvae_service.settings.table import GROUPS, settings_tables

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "operations.md"
TEXT = PAGE.read_text()
COMMAND = "python -m convvae_service.settings.table docs/operations.md"
FIELDS = ServeSettings.model_fields
# Settings whose values are not any text.
CHECKED = [name for name, field in FIELDS.items() if field.annotation in (bool, int, float)]
RESULTS = ROOT / "tests" / "bench" / "results"
# Cells of the measurement of speed, and how the page names them.
CALLS = {
    "Encode 1 x16": "Encode, 1 row, 16 callers",
    "Encode 1 x16 by Client": "the same, threads that share a `Client(coalesce=True)`",
    "Encode 64 x4": "Encode, 64 rows",
    "Encode 256 x4": "Encode, 256 rows",
    "EncodeFiles 64 x4": "Encode, 64 JPEG files",
    "Decode 64 x4": "Decode, 64 rows",
}
RULES: dict[str, dict[str, Any]] = {
    rule["alert"]: rule
    for group in yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules.yaml").read_text())["groups"]
    for rule in group["rules"]
}


def speed() -> dict[str, Any]:
    result: dict[str, Any] = json.loads((RESULTS / "serving_speed.json").read_text())
    return result


def cost_us(cell: str, front: str) -> float:
    """Return the processor time of the server for a row."""
    return float(speed()["cells"][cell][front]["cpu_us"]["median"])


def capacity_rows() -> list[str]:
    """Return the rows of the page's table of processor time."""
    rows = []
    for cell, name in CALLS.items():
        costs = [cost_us(cell, front) for front in ("native", "grpcio")]
        columns = [f"{cost:.0f}" for cost in costs] + [f"{1e6 / cost:,.0f}" for cost in costs]
        rows.append(f"| {name} | {' | '.join(columns)} |")
    return rows


def test_the_settings_are_up_to_date() -> None:
    """The tables on the page are those that the settings give."""
    assert with_tables(TEXT, settings_tables()) == TEXT, f"run {COMMAND}"


def test_every_setting_has_one_row() -> None:
    """Each setting is in one table, with its variable, its default and its text; numbers have units."""
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| (\w*) \| (.*) \| (.*) \| (.+) \|$", settings_tables(), re.M)
    assert sorted(name for name, *_ in rows) == sorted(FIELDS)
    assert [name for name, *_ in rows] == [name for names in GROUPS.values() for name in names]
    for name, variable, unit, default, values, text in rows:
        field = FIELDS[name]
        assert variable == f"CONVVAE_SERVE_{name.upper()}"
        assert text.replace("\\<", "<") == field.description
        if field.annotation in (int, float):
            assert unit
            assert f"{field.default:g}" in default or str(field.default) in default
            assert values == allowed_numbers(name, field) != ""
        else:
            assert not unit_of(name)


@pytest.mark.parametrize("name", CHECKED)
def test_the_variable_of_a_setting_is_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong value in the variable that the page names is refused under the name of the setting."""
    monkeypatch.setenv(f"CONVVAE_SERVE_{name.upper()}", "odd")
    with pytest.raises(StartupError, match=name.replace("_", "[-_]")):
        load_settings(["--models", "models"])


def test_the_command_writes_the_tables(tmp_path: Path) -> None:
    """The command replaces the text between the comments, and nothing else."""
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    subprocess.run([sys.executable, "-m", "convvae_service.settings.table", str(page)], check=True)
    assert page.read_text() == f"before\n{BEGIN}\n{settings_tables()}{END}\nafter\n"
    with pytest.raises(ValueError, match="the page needs the comments"):
        with_tables("no comments", "")


def test_the_table_of_processor_time_is_what_was_measured() -> None:
    """The table is made from the result file. The message of a failure has the rows to paste."""
    quoted = TEXT.partition("| Calls | native, us |")[2].partition("\n\n")[0].splitlines()[2:]
    assert quoted == capacity_rows(), "\n".join(capacity_rows())


def test_the_example_reckons_with_what_was_measured() -> None:
    """The steps of the example follow from the processor time of a row."""
    cost = cost_us("Encode 64 x4", "grpcio")
    busy = 40_000 * cost / 1e6
    queued_rows = round(0.1 * 2 * 1e6 / cost, -2)
    steps = [
        f"40,000 x {cost:.0f} us / 1,000,000 | {busy:.1f} CPUs",
        f"{busy:.1f} / 0.6 | {busy / 0.6:.1f} CPUs, so {math.ceil(busy / 0.6 / 2)} servers of 2 CPUs",
        f"0.1 s x 2 CPUs x {1e6 / cost:,.0f} rows/s | `max_queued_rows = {queued_rows:.0f}`",
    ]
    assert [step for step in steps if step not in TEXT] == []


def test_memory_is_what_was_measured() -> None:
    """The idle server and the batches have the figures of the result files."""
    idle = max(speed()["idle"][front]["resident_mib"]["median"] for front in ("native", "grpcio"))
    arenas = json.loads((RESULTS / "runtime_settings.json").read_text())
    small, large = (arenas[f"arena {graph} keep"]["resident_mib"] for graph in ("28x28x1", "64x64x3"))
    assert f"idle | {idle:.0f} MiB |" in TEXT
    assert f"up to {small:.0f} MiB (decoder of 28x28x1, 64 rows) or {large:.0f} MiB (of 64x64x3)" in TEXT


@pytest.mark.parametrize("alert", RULES)
def test_an_alert_says_what_to_do(alert: str) -> None:
    """Each alert leads to its section, which has its severity, and causes with signs and actions."""
    rule = RULES[alert]
    assert rule["annotations"]["runbook"] == f"docs/operations.md#{alert.lower()}"
    section = TEXT.partition(f"\n### {alert}\n")[2].partition("\n#")[0]
    assert f"{rule['labels']['severity'].capitalize()}" in section.partition("\n|")[0]
    assert len(re.findall(r"^\| [^|]+ \| [^|]+ \| [^|]+ \|$", section, re.M)) >= 3


def test_no_section_is_without_an_alert() -> None:
    """The sections are those of the rules."""
    assert re.findall(r"^### (Convvae\w+)$", TEXT, re.M) == list(RULES)


def test_lines_of_the_log_are_those_of_the_service() -> None:
    """Each line of the log that the page quotes is in the code."""
    sources = (ROOT / "service").rglob("*.py")
    code = "\n".join(path.read_text() for path in sources)
    code += "".join(f'"{part} is stuck"' for part in PARTS.values())
    quoted = re.findall(r"log `([^`]+)`", TEXT)
    assert len(quoted) > 10
    assert [line for line in quoted if f'"{line}"' not in code] == []


def test_metrics_of_the_causes_are_in_the_table() -> None:
    """Every metric that the page names is in its table of metrics."""
    table = set(re.findall(r"^\| `((?:convvae|grpc|process)_\w+)` \|", TEXT, re.M))
    named = set(re.findall(r"`((?:convvae|grpc_server|process)_\w+)`", TEXT))
    assert named <= table
