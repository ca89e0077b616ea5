"""docs/architecture.md names files and tables that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "architecture.md").read_text()
PACKAGES = [
    ROOT / folder for folder in ("service/convvae_service", "trainer/convvae_trainer", "protos/convvae")
]
PATHS = sorted(set(re.findall(r"`([\w./-]*/[\w./-]*)`", TEXT)))
NAMES = sorted(set(re.findall(r"`(\w+)` in `([\w./-]+\.py)`", TEXT)))


def found(path: str) -> list[Path]:
    """Return the places of a path, which is relative to the repository or to a package."""
    return [folder / path for folder in (ROOT, *PACKAGES) if (folder / path).exists()]


@pytest.mark.parametrize("path", PATHS)
def test_every_path_exists(path: str) -> None:
    """A path is a file or folder of the repository, or of one of its packages."""
    assert found(path), path


@pytest.mark.parametrize(("name", "path"), NAMES)
def test_every_name_stands_in_its_file(name: str, path: str) -> None:
    """A table, class or function that is to be changed is in the file that the page names."""
    assert any(re.search(rf"\b{name}\b", place.read_text()) for place in found(path)), (name, path)


def test_the_page_is_one_page() -> None:
    """Paths, names and journeys are there, in at most 120 lines."""
    assert len(PATHS) > 40
    assert len(NAMES) > 8
    assert len(TEXT.splitlines()) <= 120
