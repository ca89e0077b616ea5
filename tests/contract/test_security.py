"""docs/security.md agrees with the settings, with the programs, and with the results of the attacks."""

import re
from pathlib import Path

import pytest

from attack.summary import with_results
from convvae_service.settings.serve import ServeSettings

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "security.md").read_text()
LIMITS = re.compile(r"^\| `(\w+)` \| ([\d.]+) \|", re.MULTILINE)


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
    """The last table is made from the result files."""
    assert with_results(DOCUMENT) == DOCUMENT, "run python tests/attack/summary.py"
