"""The notes that helm prints after an installation name the objects that the chart made."""

import shutil
from pathlib import Path

import pytest
import yaml

from support.chart import CHART, KUBERNETES, NAMESPACE, RELEASE, VALUES, rendered, run

# `helm template` prints no notes, so a copy of the chart has them in an object.
HOLDER = """apiVersion: v1
kind: ConfigMap
metadata: {name: notes}
data:
  text: |
    {{- tpl (.Files.Get "NOTES.txt") . | nindent 4 }}
"""


def notes(values: str, folder: Path) -> str:
    """Return what helm prints for these values."""
    chart = shutil.copytree(CHART, folder / "chart")
    (chart / "templates" / "NOTES.txt").rename(chart / "NOTES.txt")
    (chart / "templates" / "notes.yaml").write_text(HOLDER)
    options = ("--namespace", NAMESPACE, "--kube-version", KUBERNETES[-1])
    file = VALUES / f"{values}.yaml"
    shown = ("--show-only", "templates/notes.yaml")
    done = run("helm", "template", RELEASE, chart, *options, "--values", file, *shown)
    assert done.returncode == 0, done.stderr
    text: str = yaml.safe_load(done.stdout)["data"]["text"]
    return text


@pytest.mark.parametrize(
    ("values", "lines"),
    [
        (
            "pvc",
            (
                "convvae serves the models from pvc in 2 pods.",
                "Connections are not encrypted, and calls need no token.",
                "Pods of this namespace may call.",
            ),
        ),
        (
            "secure",
            (
                "convvae serves the models from bucket in 2 to 8 pods.",
                "Connections are encrypted, and calls need a token.",
                "The peers of networkPolicy.clients may call.",
            ),
        ),
    ],
)
def test_notes_say_who_may_call_where(values: str, lines: tuple[str, ...], tmp_path: Path) -> None:
    """The notes have the addresses of both services, how they are secured, and who may call."""
    text = notes(values, tmp_path)
    for line in lines:
        assert line in text.splitlines()
    services = {name for kind, name in rendered(values) if kind == "Service"}
    for name in services:
        assert f"{name}.{NAMESPACE}.svc" in text
    assert f"rollout status deployment/{RELEASE}-convvae" in text
    assert f"helm --namespace {NAMESPACE} test {RELEASE}" in text
