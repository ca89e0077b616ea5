"""The list of allowed skips names tests that exist."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINES = (ROOT / "tests" / "allowed_skips.txt").read_text().splitlines()


@pytest.mark.parametrize("line", [line for line in LINES if line and not line.startswith("#")])
def test_what_may_skip_exists(line: str) -> None:
    """A line is a test file, or a file and the beginning of a test's name, or a folder and a reason."""
    line, _, reason = line.partition(" | ")
    file, _, name = line.partition("::")
    if reason:
        assert (ROOT / file).is_dir()
        assert reason in (ROOT / "tests" / "conftest.py").read_text()
    else:
        assert f"def {name}" in (ROOT / file).read_text()
