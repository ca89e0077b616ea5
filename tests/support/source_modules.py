"""The modules of each package, as files of this tree."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = {"convvae_service": "service", "convvae_trainer": "trainer", "convvae": "protos"}


def modules_of(package: str, root: Path = ROOT) -> dict[str, Path]:
    """Return the modules of a package by dotted name, without generated ones."""
    folder = root / FOLDERS[package]
    found = {}
    for path in sorted((folder / package).rglob("*.py")):
        if "_pb2" not in path.name:
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found
