"""docs/measurements.md says which programs there are, and which of them `make bench` runs."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_document_and_the_makefile_agree() -> None:
    """Every program that `make bench` leaves out is named beside it, and every program is in the table."""
    text = (ROOT / "docs" / "measurements.md").read_text()
    made = re.search(r"^FIGURES \?= (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    left_out = re.search(r"^    make bench +# all but (.*)$", text, re.MULTILINE)
    assert made is not None
    assert left_out is not None
    listed = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    named = left_out[1].replace(" and ", ", ").split(", ")
    assert sorted([*made[1].split(), *named]) == sorted(listed)
    for name in listed:
        assert (ROOT / "tests" / "bench" / f"{name}.py").is_file()
    for name in named:
        assert f"make bench FIGURES={name} " in text
