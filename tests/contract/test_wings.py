"""The wings of each package: a wing imports only those that stand before it in the table."""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from support.source_modules import ROOT, modules_of

# The order of each package's wings and top-level modules, lowest first. `errors`, `streams` and `console`
# are for all.
ORDER: dict[str, tuple[str, ...]] = {
    "convvae_service": (
        "errors",
        "printable",
        "bundle",
        "images",
        "engine",
        "batching",
        "settings",
        "pipeline",
        "observability",
        "repository",
        "calls",
        "api",
        "local",
        "__init__",
        "open_inference",
        "server",
        "cli",
        "__main__",
    ),
    "convvae_trainer": (
        "errors",
        "streams",
        "console",
        "settings",
        "data",
        "compute",
        "networks",
        "objectives",
        "step",
        "evaluation",
        "runs",
        "exports",
        "compare",
        "study",
        "commands",
        "cli",
        "python",
        "__init__",
        "__main__",
    ),
    "convvae": (
        "v1",
        "version",
        "program",
        "addresses",
        "errors",
        "model_name",
        "config",
        "connection",
        "pictures",
        "results",
        "inputs",
        "calls",
        "transport",
        "coalescing",
        "client",
        "aio",
        "__init__",
        "cli",
        "__main__",
    ),
}
# The wings that one package may take from another. `__init__` stands for the public names.
TAKES: dict[str, dict[str, tuple[str, ...]]] = {
    "convvae_trainer": {"convvae_service": ("bundle", "images", "engine"), "convvae": ("program",)},
    "convvae_service": {"convvae": ("v1", "__init__", "program", "addresses", "inputs", "connection")},
    "convvae": {},
}
# Wings with a face: others import what it lists, and none of its modules.
FACES = ("convvae_service.bundle", "convvae_service.images")


def imports_of(path: Path, known: Mapping[str, object]) -> Iterator[tuple[int, str]]:
    """Yield (line, module) for each import in a file, also inside functions and under TYPE_CHECKING.

    `from package import name` is an import of the module `package.name` where there is one.
    """
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield node.lineno, whole if whole in known else node.module or ""


def wing_of(module: str) -> str:
    """Return a module's wing: the name below its package."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def arrows_upward(package: str, root: Path = ROOT) -> list[str]:
    """Return each import of a package that points to a higher wing, or where it may not point at all."""
    order = {wing: level for level, wing in enumerate(ORDER[package])}
    known = {name: path for other in ORDER for name, path in modules_of(other, root).items()}
    found = []
    for name, path in modules_of(package, root).items():
        wing = wing_of(name)
        for line, target in imports_of(path, known):
            where = f"{path.relative_to(root)}:{line} imports {target}"
            other = target.partition(".")[0]
            if other == package:
                if order[wing_of(target)] > order[wing]:
                    found.append(where)
            elif other in ORDER and wing_of(target) not in TAKES[package].get(other, ()):
                found.append(where)
            face = ".".join(target.split(".")[:2])
            if face in FACES and target != face and (other != package or wing_of(target) != wing):
                found.append(f"{where}, not {face}")
    return found


def circles(package: str, root: Path = ROOT) -> list[list[str]]:
    """Return the circles among a package's modules, each as the modules along it."""
    known = modules_of(package, root)
    # An import of a module runs the `__init__` of its wing too; within the wing that is no arrow of its own.
    arrows = {
        name: sorted({target for _, target in imports_of(path, known) if target in known})
        for name, path in known.items()
    }
    state: dict[str, int] = {}
    found: list[list[str]] = []

    def visit(name: str, trail: list[str]) -> None:
        state[name] = 1
        for target in arrows[name]:
            if state.get(target) == 1:
                found.append([*trail[trail.index(target) :], target])
            elif target not in state:
                visit(target, [*trail, target])
        state[name] = 2

    for name in known:
        if name not in state:
            visit(name, [name])
    return found


@pytest.mark.parametrize("package", ORDER)
def test_imports_point_downwards(package: str) -> None:
    """No wing imports one that stands after it; what crosses packages is what the table allows."""
    assert not arrows_upward(package)


@pytest.mark.parametrize("package", ORDER)
def test_there_are_no_circles(package: str) -> None:
    """No module imports itself by way of others, also not inside a function."""
    assert not circles(package)


@pytest.mark.parametrize("package", ORDER)
def test_every_wing_has_its_place(package: str) -> None:
    """The table names the wings that exist, and no others."""
    assert {wing_of(name) for name in modules_of(package)} - {"__init__"} == set(ORDER[package]) - {
        "__init__"
    }


@pytest.mark.parametrize("package", ["convvae_service", "convvae_trainer"])
def test_no_file_repeats_its_folder(package: str) -> None:
    """`engine/engine.py` would say nothing that `engine/` does not; a name needs no prefix of its folder."""
    for path in modules_of(package).values():
        assert path.stem != path.parent.name, path
        assert not path.stem.startswith(f"{path.parent.name}_"), path


def test_an_upward_arrow_is_found(tmp_path: Path) -> None:
    """The check finds arrows upwards, past a face and into a forbidden wing, and a circle."""
    files = {
        "service/convvae_service/__init__.py": "",
        "service/convvae_service/bundle/__init__.py": "",
        "service/convvae_service/bundle/store.py": "def f():\n    from convvae_service.server import tls\n",
        "service/convvae_service/engine/__init__.py": "",
        "service/convvae_service/engine/stages.py": "from convvae_service.bundle.store import f\n",
        "service/convvae_service/server/__init__.py": "",
        "service/convvae_service/server/tls.py": "import convvae_service.bundle.store\n",
        "trainer/convvae_trainer/__init__.py": "",
        "trainer/convvae_trainer/data/__init__.py": "",
        "trainer/convvae_trainer/data/rows.py": "from convvae_service.server.tls import x\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "protos" / "convvae").mkdir(parents=True)
    service = arrows_upward("convvae_service", tmp_path)
    assert "service/convvae_service/bundle/store.py:2 imports convvae_service.server.tls" in service
    assert any("engine/stages.py:1" in line and "not convvae_service.bundle" in line for line in service)
    assert arrows_upward("convvae_trainer", tmp_path) == [
        "trainer/convvae_trainer/data/rows.py:1 imports convvae_service.server.tls"
    ]
    assert len(circles("convvae_service", tmp_path)) == 1


@pytest.mark.parametrize("package", ORDER)
def test_the_architecture_page_lists_the_wings_in_order(package: str) -> None:
    """docs/architecture.md has each wing of the table, in this order."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.search(rf"^\| `\w+/{package}` \| \|\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert rows is not None
    listed = [name for row in rows[1].splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    # Small modules of the client have no line.
    unlisted = {"__init__", "__main__", "version", "addresses", "model_name"}
    assert listed == [wing for wing in ORDER[package] if wing not in unlisted]
