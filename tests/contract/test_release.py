"""The checks of `make release` accept what the repository would build, and find what must not be in it."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from deploy.archives import COMMANDS, PACKAGES, check_sdist, check_wheel
from deploy.release import DEFAULT_FORMS, FORMS

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
INFO = f"convvae-{PROJECT['version']}.dist-info"


@pytest.fixture(scope="module")
def tracked() -> set[str]:
    """The files that git tracks, or in a copy without git the source files that are there."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        return set(listed.stdout.splitlines())
    files = (
        path.relative_to(ROOT)
        for folder in {*PACKAGES.values(), "tests"}
        for path in (ROOT / folder).rglob("*")
    )
    return {str(path) for path in files if "__pycache__" not in path.parts and (ROOT / path).is_file()}


@pytest.fixture
def wheel(tracked: set[str]) -> dict[str, bytes]:
    """The files of a wheel as they should be."""
    files = {
        name.partition("/")[2]: (ROOT / name).read_bytes()
        for name in tracked
        if any(name.startswith(f"{folder}/{package}/") for package, folder in PACKAGES.items())
    }
    extras = "".join(f"Provides-Extra: {extra}\n" for extra in PROJECT["optional-dependencies"])
    metadata = f"Name: {PROJECT['name']}\nVersion: {PROJECT['version']}\n{extras}\n"
    commands = "".join(f"{command} = x:main\n" for command in sorted(COMMANDS))
    return {
        **files,
        f"{INFO}/METADATA": metadata.encode(),
        f"{INFO}/entry_points.txt": f"[console_scripts]\n{commands}".encode(),
        f"{INFO}/licenses/LICENSE": b"",
    }


def test_a_sound_wheel_is_accepted(wheel: dict[str, bytes], tracked: set[str]) -> None:
    """The packages, protos, types, licence, extras and commands of the repository are what is expected."""
    assert check_wheel(wheel, tracked, root=ROOT) == []
    assert set(PROJECT["scripts"]) == COMMANDS


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("convvae/v1/vae.proto", None, "no convvae/v1/vae.proto"),
        ("convvae/py.typed", None, "no convvae/py.typed"),
        (f"{INFO}/licenses/LICENSE", None, "no LICENSE"),
        (f"{INFO}/METADATA", b"Name: convvae\nVersion: 9\n\n", "Version is 9"),
        (f"{INFO}/METADATA", b"Name: convvae\nVersion: 9\n\n", "extras"),
        (f"{INFO}/entry_points.txt", b"convvae = x:main\n", r"commands are \['convvae'\]"),
        ("tests/conftest.py", b"", "has tests/conftest.py"),
        ("convvae/__pycache__/client.cpython-311.pyc", b"", "has convvae/__pycache__"),
        ("convvae/client.py", f"{ROOT}/protos".encode(), "contains the path"),
    ],
)
def test_a_fault_of_a_wheel_is_found(
    wheel: dict[str, bytes], tracked: set[str], name: str, content: bytes | None, fault: str
) -> None:
    """Missing files, files that do not belong there, wrong metadata and paths of this machine are named."""
    wheel.pop(name, None)
    if content is not None:
        wheel[name] = content
    faults = check_wheel(wheel, tracked, root=ROOT)
    assert any(re.search(fault, line) for line in faults), faults


def test_a_fault_of_an_sdist_is_found(tracked: set[str]) -> None:
    """An sdist has the files that the build and the tests need, and no file that git does not track."""
    sdist = dict.fromkeys({*tracked, "PKG-INFO", "LICENSE", "Makefile", "README.md", "pyproject.toml"}, b"")
    tracked = tracked | sdist.keys()
    assert check_sdist(sdist, tracked, root=ROOT) == []
    del sdist["LICENSE"]
    sdist["demo/samples.png"] = b""
    faults = check_sdist(sdist, tracked, root=ROOT)
    assert faults == ["the sdist has no LICENSE", "the sdist has demo/samples.png, which git does not track"]


def test_every_extra_of_a_form_exists() -> None:
    """The forms that are installed name extras of the package; the default ones leave the trainer out."""
    extras = {extra for form in FORMS for extra in form.split(",")} - {"client"}
    assert extras <= set(PROJECT["optional-dependencies"])
    assert set(DEFAULT_FORMS) == FORMS.keys() - {"trainer,cpu"}
    line = re.search(r"^FORMS \?= (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert line is not None
    assert tuple(line[1].split()) == DEFAULT_FORMS
