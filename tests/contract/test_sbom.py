"""The bill of materials of a release has what the wheel brings, and its check finds what is missing."""

import copy
import zipfile
from pathlib import Path
from typing import Any

import pytest
from deploy.sbom import TOOL, direct_dependencies, faults_of, unlicensed, with_needs_alone

METADATA = """Name: convvae
Version: 1.0
Requires-Dist: numpy>=1.26
Requires-Dist: Prometheus_Client>=0.22; extra == 'service'
Requires-Dist: winloop; sys_platform == 'win32'
"""
NEEDS = {
    "convvae": ["numpy", "prometheus-client"],
    "numpy": [],
    "prometheus-client": ["idna"],
    "idna": [],
}


def component(name: str, **fields: Any) -> dict[str, Any]:
    """Return a component as CycloneDX's program writes it."""
    reference = {"type": "website", "url": f"https://{name}.example"}
    licence = {"license": {"id": "MIT", "acknowledgement": "declared"}}
    return {
        "bom-ref": f"{name}==2",
        "name": name,
        "version": "2",
        "purl": f"pkg:generic/{name}@2",
        "licenses": [licence],
        "externalReferences": [reference],
        **fields,
    }


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A wheel that requires numpy, and prometheus-client for one extra."""
    path = tmp_path / "convvae-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("convvae-1.0.dist-info/METADATA", METADATA)
    return path


@pytest.fixture
def document() -> dict[str, Any]:
    """A document on an environment with the wheel, what it needs, and pip."""
    root = {"bom-ref": "root", "name": "convvae", "version": "1.0", "type": "library"}
    tool = {"name": "cyclonedx-py", "externalReferences": [{"type": "vcs", "url": "https://tool.example"}]}
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "metadata": {"component": root, "tools": {"components": [tool]}},
        "components": [
            component("numpy"),
            component("prometheus_client"),
            component("idna"),
            component("pip"),
        ],
        "dependencies": [
            {"ref": "root", "dependsOn": ["numpy==2", "prometheus_client==2"]},
            {"ref": "idna==2", "dependsOn": ["pip==2"]},
        ],
    }


def test_direct_dependencies_are_those_of_the_extras(wheel: Path) -> None:
    """Needs of other extras and other systems are left out; names have one spelling."""
    assert direct_dependencies(wheel, frozenset()) == {"numpy"}
    assert direct_dependencies(wheel, frozenset({"service"})) == {"numpy", "prometheus-client"}


def test_only_what_the_wheel_brings_is_listed(document: dict[str, Any], wheel: Path) -> None:
    """Pip and web addresses go; what the wheel needs directly and indirectly stays, with its checksum."""
    listed = with_needs_alone(document, NEEDS, wheel)
    assert [each["name"] for each in listed["components"]] == ["idna", "numpy", "prometheus_client"]
    assert {entry["ref"]: entry["dependsOn"] for entry in listed["dependencies"]} == {
        "root": ["numpy==2", "prometheus_client==2"],
        "idna==2": [],
        "numpy==2": [],
        "prometheus_client==2": ["idna==2"],
    }
    (digest,) = listed["metadata"]["component"]["hashes"]
    assert digest["alg"] == "SHA-256"
    assert len(digest["content"]) == 64
    assert faults_of(listed, direct_dependencies(wheel, frozenset({"service"})), version="1.0") == []


def test_faults_of_a_document_are_found(document: dict[str, Any], wheel: Path) -> None:
    """Another version, a dependency that is missing, a version that is missing, and an address are named."""
    listed = with_needs_alone(document, NEEDS, wheel)
    others = [each for each in listed["components"] if each["name"] != "numpy"]

    def faults(**changes: Any) -> list[str]:
        changed = {**copy.deepcopy(listed), **changes}
        return faults_of(changed, {"numpy", "prometheus-client"}, version="1.0")

    other = {"component": {"bom-ref": "root", "name": "convvae", "version": "0.9"}}
    assert faults(metadata=other) == ["is on convvae 0.9 and not on convvae 1.0"]
    assert faults(components=others) == ["lacks the direct dependency numpy"]
    unversioned = component("numpy", version="", externalReferences=[])
    assert faults(components=[unversioned, *others]) == ["has no version of numpy"]
    addressed = component("numpy")
    assert faults(components=[addressed, *others]) == ["has an address or a path: ://"]


def test_missing_licences_are_named(document: dict[str, Any]) -> None:
    """Components without a licence are listed; that is no fault, since some packages state none."""
    document["components"].append(component("protobuf", licenses=[]))
    assert unlicensed(document) == ["protobuf"]


def test_the_program_is_pinned() -> None:
    """CycloneDX's packages have exact versions."""
    assert all("==" in requirement for requirement in TOOL)
