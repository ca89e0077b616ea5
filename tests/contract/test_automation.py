"""The hooks and the hosted workflow call commands that this repository has."""

import re
import shlex
import sys
import tomllib
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def hooks() -> list[dict[str, Any]]:
    """Return all hooks of the pre-commit configuration."""
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert [repo["repo"] for repo in config["repos"]] == ["local"]
    found: list[dict[str, Any]] = config["repos"][0]["hooks"]
    return found


def jobs() -> dict[str, Any]:
    """Return the jobs of the hosted workflow."""
    found: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    return found


def commands(job: dict[str, Any]) -> list[str]:
    """Return the commands that a job runs, in order."""
    return [step["run"] for step in job["steps"] if "run" in step]


def test_hooks_call_the_tools_of_the_project() -> None:
    """Each hook calls a program of .venv, which the project pins, on files that exist."""
    assert [hook["id"] for hook in hooks()] == ["ruff-check", "ruff-format", "mypy", "protos"]
    for hook in hooks():
        program, *words = shlex.split(hook["entry"])
        folder, name = program.rsplit("/", 1)
        assert folder == ".venv/bin"
        assert (Path(sys.executable).parent / name).exists(), program
        assert hook["language"] == "system"
        for word in words:
            assert "/" not in word or (ROOT / word).exists(), word


def test_the_workflow_calls_targets_of_the_makefile() -> None:
    """The workflow checks first, then runs the two commands of the README."""
    assert commands(jobs()["check"]) == ["make check"]
    assert commands(jobs()["test"]) == ["make demo", "make test"]
    assert jobs()["test"]["needs"] == "check"
    used = {command.removeprefix("make ") for job in jobs().values() for command in commands(job)}
    assert used <= TARGETS


def test_the_workflow_covers_the_supported_pythons() -> None:
    """The matrix begins with the oldest Python that the package accepts, and has the versions it names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    versions = jobs()["test"]["strategy"]["matrix"]["python-version"]
    assert project["requires-python"] == f">={versions[0]}"
    named = [line.rpartition(" ")[2] for line in project["classifiers"] if "Python :: 3." in line]
    assert versions == named
