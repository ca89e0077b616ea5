"""The Helm chart of deploy/chart, rendered by the real helm with a file of values."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "chart"
VALUES = ROOT / "tests" / "integration" / "deploy" / "values"
TOOLS = ROOT / ".tools" / "bin"
# The name of a release, and its namespace.
RELEASE, NAMESPACE = "r", "models"
# Versions of Kubernetes for which the chart is checked: the oldest one of Chart.yaml, and the newest.
KUBERNETES = ("1.29.0", "1.37.0")

Rendered = dict[tuple[str, str], dict[str, Any]]


def program(name: str) -> str:
    """Return the path of a tool, or skip the test where it is not installed."""
    path = shutil.which(name, path=f"{TOOLS}{os.pathsep}{os.environ['PATH']}")
    if path is None:
        pytest.skip(f"{name} is not installed: tests/README.md says where it comes from")
    return path


def run(name: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a tool to its end."""
    return subprocess.run([program(name), *words], capture_output=True, text=True, timeout=60, check=False)


def template(values: str, *words: str, kubernetes: str = KUBERNETES[-1]) -> subprocess.CompletedProcess[str]:
    """Run `helm template` with the values of `VALUES/<values>.yaml`, and more words such as `--set`."""
    file = VALUES / f"{values}.yaml"
    options = ("--namespace", NAMESPACE, "--kube-version", kubernetes, "--values", file)
    return run("helm", "template", RELEASE, CHART, *options, *words)


def rendered(values: str, *words: str) -> Rendered:
    """Return the objects by kind and name."""
    done = template(values, *words)
    assert done.returncode == 0, done.stderr
    objects = [document for document in yaml.safe_load_all(done.stdout) if document]
    found = {(one["kind"], one["metadata"]["name"]): one for one in objects}
    assert len(found) == len(objects)
    return found


def only(objects: Rendered, kind: str) -> dict[str, Any]:
    """Return the only object of a kind."""
    (found,) = [one for (its_kind, _), one in objects.items() if its_kind == kind]
    return found


def pod_of(objects: Rendered) -> dict[str, Any]:
    """Return the pod of the Deployment."""
    found: dict[str, Any] = only(objects, "Deployment")["spec"]["template"]["spec"]
    return found


def server_of(objects: Rendered) -> dict[str, Any]:
    """Return the only container of the Deployment."""
    (found,) = pod_of(objects)["containers"]
    container: dict[str, Any] = found
    return container


def pods(objects: Rendered) -> Iterator[dict[str, Any]]:
    """Yield every pod that the chart starts."""
    yield pod_of(objects)
    yield only(objects, "Pod")["spec"]
