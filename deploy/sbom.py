"""The bill of materials of the wheel: its dependencies with versions and licences, as CycloneDX JSON.

CycloneDX's own program lists an environment in which the wheel is installed. It runs in an environment of its
own, with the versions below. `make release` writes one document for each form of the wheel.
"""

import hashlib
import json
import venv
from collections.abc import Mapping
from email.parser import BytesParser
from pathlib import Path
from typing import Any

from deploy.archives import read_wheel
from deploy.commands import ReleaseError, run
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

__all__ = ["SbomTool", "direct_dependencies", "faults_of", "unlicensed", "with_needs_alone"]

ROOT = Path(__file__).resolve().parents[1]
TOOL = ("cyclonedx-bom==7.5.0", "cyclonedx-python-lib==11.12.0")
SPECIFICATION = "1.6"
INSTALL_S, LIST_S = 600, 120
VALIDATE = f"""
import pathlib, sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
validator = JsonStrictValidator(SchemaVersion.from_version("{SPECIFICATION}"))
fault = validator.validate_str(pathlib.Path(sys.argv[1]).read_text())
sys.exit(None if fault is None else str(fault))
"""
# Run in the environment with the wheel: what each package needs there. The program's own graph has the needs
# of extras that nobody asked for, and with them pip.
NEEDS = """
import json, sys
from importlib.metadata import distribution
from pip._vendor.packaging.requirements import Requirement
from pip._vendor.packaging.utils import canonicalize_name
needs, seen, waiting = {}, set(), [("convvae", extra) for extra in ("", *sys.argv[1:])]
while waiting:
    name, extra = waiting.pop()
    if (name, extra) in seen:
        continue
    seen.add((name, extra))
    found = needs.setdefault(name, set())
    for requirement in map(Requirement, distribution(name).requires or ()):
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            needed = canonicalize_name(requirement.name)
            found.add(needed)
            waiting += [(needed, each) for each in ("", *requirement.extras)]
print(json.dumps({name: sorted(found) for name, found in needs.items()}))
"""
Document = dict[str, Any]


class SbomTool:
    """CycloneDX's program in a new environment."""

    def __init__(self, folder: Path) -> None:
        """Create the environment in `folder`."""
        venv.create(folder / "sbom", with_pip=True)
        self._folder = folder
        self._bin = folder / "sbom" / "bin"
        self._run("python", "-m", "pip", "install", "--quiet", *TOOL, timeout_s=INSTALL_S)

    def write(self, python: Path, wheel: Path, extras: frozenset[str], out: Path) -> Document:
        """Write the document on the environment of `python`, in which the wheel is installed, and return it.

        Raises:
            ReleaseError: The program failed, or the document has a fault.
        """
        about = ("--pyproject", ROOT / "pyproject.toml", "--mc-type", "library", "--output-reproducible")
        form = ("--spec-version", SPECIFICATION, "--short-PURLs", "--output-file", out)
        self._run("cyclonedx-py", "environment", *about, *form, python)
        needs = json.loads(run([python, "-c", NEEDS, *sorted(extras)], cwd=self._folder, timeout_s=LIST_S))
        document = with_needs_alone(json.loads(out.read_text()), needs, wheel)
        out.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
        self._run("python", "-c", VALIDATE, out)
        version = wheel.name.split("-")[1]
        if faults := faults_of(document, direct_dependencies(wheel, extras), version=version):
            raise ReleaseError("\n".join(f"{out.name}: {fault}" for fault in faults))
        return document

    def _run(self, program: str, *words: str | Path, timeout_s: float = LIST_S) -> None:
        run([self._bin / program, *words], cwd=self._folder, timeout_s=timeout_s)


def direct_dependencies(wheel: Path, extras: frozenset[str]) -> set[str]:
    """Return the names of what the wheel itself requires with these extras on this machine."""
    files = read_wheel(wheel)
    metadata = next(data for name, data in files.items() if name.endswith(".dist-info/METADATA"))
    lines = BytesParser().parsebytes(metadata).get_all("Requires-Dist") or []
    return {
        canonicalize_name(requirement.name)
        for requirement in map(Requirement, lines)
        if requirement.marker is None
        or any(requirement.marker.evaluate({"extra": extra}) for extra in extras | {""})
    }


def with_needs_alone(document: Document, needs: Mapping[str, list[str]], wheel: Path) -> Document:
    """Return the document with the wheel's checksum, and with nothing that the wheel does not need.

    Addresses of web pages go too: nobody needs them to find a package, and they change.

    Args:
        document: The program's document on an environment.
        needs: The names of the packages that each package needs, from `convvae` on.
        wheel: The wheel that is installed there.
    """
    root = document["metadata"]["component"]
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    about = {**root, "hashes": [{"alg": "SHA-256", "content": digest}]}
    by_name = {str(canonicalize_name(each["name"])): each for each in document["components"]}
    kept = {name: by_name[name] for name in sorted(needs) if name in by_name}
    refs = {"convvae": root["bom-ref"], **{name: each["bom-ref"] for name, each in kept.items()}}
    entries = [
        {"ref": ref, "dependsOn": [refs[needed] for needed in needs[name] if needed in refs]}
        for name, ref in refs.items()
    ]
    return {
        **document,
        "metadata": _without_addresses({**document["metadata"], "component": about}),
        "components": _without_addresses(list(kept.values())),
        "dependencies": entries,
    }


def faults_of(document: Document, direct: set[str], *, version: str) -> list[str]:
    """Return what is wrong with a document on the wheel of a version with these direct dependencies."""
    root = document["metadata"]["component"]
    faults = []
    if (root["name"], root.get("version")) != ("convvae", version):
        faults.append(f"is on {root['name']} {root.get('version')} and not on convvae {version}")
    by_ref = {component["bom-ref"]: component for component in document["components"]}
    needed_by = {entry["ref"]: entry.get("dependsOn", []) for entry in document["dependencies"]}
    needs = needed_by.get(root["bom-ref"], [])
    named = {canonicalize_name(by_ref[ref]["name"]) for ref in needs if ref in by_ref}
    faults += [f"lacks the direct dependency {name}" for name in sorted(direct - named)]
    for component in document["components"]:
        faults += [
            f"has no {key} of {component['name']}" for key in ("version", "purl") if not component.get(key)
        ]
    text = json.dumps({**document, "$schema": ""})
    faults += [f"has an address or a path: {mark}" for mark in ("://", str(ROOT)) if mark in text]
    return faults


def unlicensed(document: Document) -> list[str]:
    """Return the names of components that state no licence."""
    return [component["name"] for component in document["components"] if not component.get("licenses")]


def _without_addresses(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_addresses(each) for key, each in value.items() if key != "externalReferences"}
    return [_without_addresses(each) for each in value] if isinstance(value, list) else value
