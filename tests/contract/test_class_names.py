"""Public classes of one name are one thing, over all three packages."""

import ast
from collections import defaultdict
from pathlib import Path

from support.source_modules import FOLDERS, ROOT, modules_of

# Classes that several packages define, because they mean the same and no package may import another's.
TWINS: dict[str, set[str]] = {
    # Errors of a call: raised by the service, and raised again by the client from the status.
    "DeadlineExceeded": {"convvae", "convvae_service"},
    "InvalidInput": {"convvae", "convvae_service"},
    "NotFound": {"convvae", "convvae_service"},
    "Overloaded": {"convvae", "convvae_service"},
    "Violation": {"convvae", "convvae_service"},
    # Ends of a command: each package has commands of its own.
    "Interrupted": {"convvae", "convvae_service", "convvae_trainer"},
    "MissingExtra": {"convvae_service", "convvae_trainer"},
    # Flags of commands: each program shows them in panels of its own.
    "Force": {"convvae", "convvae_trainer"},
    "Json": {"convvae", "convvae_trainer"},
}


def public_classes(path: Path) -> set[str]:
    """Return the classes and type aliases in CamelCase that a module defines and lists in `__all__`."""
    defined, listed = set(), set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            defined.add(node.target.id)
        elif isinstance(node, ast.Assign):
            names = {target.id for target in node.targets if isinstance(target, ast.Name)}
            if names == {"__all__"}:
                listed = set(ast.literal_eval(node.value))
            defined |= names
    return {name for name in defined & listed if name[0].isupper() and not name.isupper()}


def shared_names(root: Path = ROOT) -> dict[str, list[str]]:
    """Return each public class name that several modules define, with the modules."""
    found = defaultdict(list)
    for package in FOLDERS:
        for module, path in modules_of(package, root).items():
            for name in public_classes(path):
                found[name].append(module)
    return {name: sorted(modules) for name, modules in found.items() if len(modules) > 1}


def test_no_two_public_classes_share_a_name() -> None:
    """Only the twins share a name, and each of them is defined once in each of its packages."""
    shared = shared_names()
    packages = {
        name: [module.partition(".")[0] for module in modules]
        for name, modules in shared.items()
        if name in TWINS
    }
    assert not {name: modules for name, modules in shared.items() if name not in TWINS}
    assert packages == {name: sorted(twins) for name, twins in TWINS.items()}


def test_a_second_class_of_a_name_is_found(tmp_path: Path) -> None:
    """The check sees classes and aliases of any package, and passes over what `__all__` does not list."""
    files = {
        "service/convvae_service/engine/a.py": '__all__ = ["Rows"]\nRows = tuple[int]\nclass Mine: ...\n',
        "service/convvae_service/api/b.py": '__all__ = ["Call", "Mine"]\nclass Call: ...\nclass Mine: ...\n',
        "trainer/convvae_trainer/data/c.py": '__all__ = ["Rows"]\nclass Rows: ...\nclass Mine: ...\n',
        "protos/convvae/calls.py": '__all__ = ["Call"]\nclass Call: ...\n',
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert shared_names(tmp_path) == {
        "Call": ["convvae.calls", "convvae_service.api.b"],
        "Rows": ["convvae_service.engine.a", "convvae_trainer.data.c"],
    }
