"""Checks of a release's two files: that the wheel and the sdist contain what they should, and nothing else.

Both are compared with the files that git tracks. The checks read the archives and run nothing.
"""

import tarfile
import tomllib
import zipfile
from collections.abc import Mapping
from email.parser import BytesParser
from pathlib import Path, PurePosixPath

__all__ = ["PACKAGES", "check_sdist", "check_wheel", "read_sdist", "read_wheel"]

# Package of the wheel: folder of the repository that holds it.
PACKAGES = {
    "convvae": "protos",
    "open_inference": "protos",
    "convvae_service": "service",
    "convvae_trainer": "trainer",
}
COMMANDS = {"convvae", "convvae-embed", "convvae-serve", "convvae-train"}
TYPED = {f"{package}/py.typed" for package in PACKAGES if package.startswith("convvae")}
PROTOS = {"convvae/v1/vae.proto", "open_inference/inference.proto"}
# The build adds these to an sdist.
ADDED = {"PKG-INFO", ".gitignore"}
NEEDED = {"LICENSE", "Makefile", "README.md", "constraints.txt", "pyproject.toml", "tests/conftest.py"}


def read_wheel(path: Path) -> dict[str, bytes]:
    """Return the files of a wheel by name."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def read_sdist(path: Path) -> dict[str, bytes]:
    """Return the files of an sdist by name, without the folder that holds them all."""
    files = {}
    with tarfile.open(path) as archive:
        for member in archive.getmembers():
            content = archive.extractfile(member)
            if content is not None:
                files[member.name.partition("/")[2]] = content.read()
    return files


def check_wheel(files: Mapping[str, bytes], tracked: set[str], *, root: Path) -> list[str]:
    """Return what is wrong with a wheel: an empty list if nothing is.

    Args:
        files: The wheel's files by name.
        tracked: The repository's files that git tracks, relative to `root`.
        root: The repository, whose `pyproject.toml` states name, version and extras.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    info = f"{project['name']}-{project['version']}.dist-info"
    expected = {
        str(PurePosixPath(name).relative_to(folder))
        for package, folder in PACKAGES.items()
        for name in tracked
        if name.startswith(f"{folder}/{package}/")
    }
    packaged = {name for name in files if not name.startswith(f"{info}/")}
    faults = [f"the wheel has no {name}" for name in sorted((expected | TYPED | PROTOS) - packaged)]
    faults += [
        f"the wheel has {name}, which is not a file of a package" for name in sorted(packaged - expected)
    ]
    if f"{info}/licenses/LICENSE" not in files:
        faults.append("the wheel has no LICENSE")
    metadata = BytesParser().parsebytes(files.get(f"{info}/METADATA", b""))
    for key, value in (("Name", project["name"]), ("Version", project["version"])):
        if metadata[key] != value:
            faults.append(f"the wheel's {key} is {metadata[key]}, pyproject.toml has {value}")
    if set(metadata.get_all("Provides-Extra", [])) != set(project["optional-dependencies"]):
        faults.append("the wheel's extras are not those of pyproject.toml")
    entry_points = files.get(f"{info}/entry_points.txt", b"").decode()
    found = {line.partition(" = ")[0] for line in entry_points.splitlines() if " = " in line}
    if found != COMMANDS:
        faults.append(f"the wheel's commands are {sorted(found)}, not {sorted(COMMANDS)}")
    return faults + _paths_of_this_machine(files, root)


def check_sdist(files: Mapping[str, bytes], tracked: set[str], *, root: Path) -> list[str]:
    """Return what is wrong with an sdist; the arguments are those of `check_wheel`."""
    faults = [f"the sdist has no {name}" for name in sorted(NEEDED - files.keys())]
    faults += [
        f"the sdist has {name}, which git does not track" for name in sorted(files.keys() - tracked - ADDED)
    ]
    return faults + _paths_of_this_machine(files, root)


def _paths_of_this_machine(files: Mapping[str, bytes], root: Path) -> list[str]:
    """Return a fault for each file that names the repository's or the user's folder on this machine."""
    paths = [f"{path}/".encode() for path in {root.resolve(), Path.home()} if len(path.parts) > 1]
    return [
        f"{name} contains the path {path.decode()}"
        for name, content in files.items()
        for path in paths
        if path in content
    ]
