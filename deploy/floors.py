"""The oldest supported release of each dependency, as a constraints file for pip.

    python -m deploy.floors service cpu > constraints-floors.txt

It takes the lower bounds of pyproject.toml: those of the package itself and of the extras that are named.
"""

import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

__all__ = ["floors"]

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
_FLOOR = re.compile(r"([\w.-]+)(?:\[[\w,-]+\])?>=([\w.]+)")


def floors(extras: Iterable[str]) -> Iterator[str]:
    """Yield a constraint such as `numpy==1.26` for each dependency with a lower bound."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    requirements = list(project["dependencies"])
    for extra in extras:
        requirements += project["optional-dependencies"][extra]
    for requirement in requirements:
        if found := _FLOOR.match(requirement):
            yield f"{found[1]}=={found[2]}"


if __name__ == "__main__":
    print("\n".join(floors(sys.argv[1:])))
