"""Schemas of Kubernetes and of two extensions, for kubeconform, from what `make tools` brings."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PACKAGES = ROOT / ".tools" / "kubernetes-validate-venv"
# The kinds of Kubernetes that the chart has, as the files of their schemas are called.
KINDS = (
    "deployment-apps-v1",
    "horizontalpodautoscaler-autoscaling-v2",
    "networkpolicy-networking-v1",
    "pod-v1",
    "poddisruptionbudget-policy-v1",
    "service-v1",
    "serviceaccount-v1",
)
# The name of an extension's schema, its Go module, the variable of that in the Makefile, the file there.
EXTENSIONS = (
    (
        "scaledobject-keda-v1alpha1",
        "github.com/kedacore/keda/v2",
        "KEDA",
        "config/crd/bases/keda.sh_scaledobjects.yaml",
    ),
    (
        "servicemonitor-monitoring-v1",
        "github.com/prometheus-operator/prometheus-operator",
        "PROMETHEUS_OPERATOR",
        "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
    ),
)


def write_kubernetes(folder: Path, version: str) -> None:
    """Write the strict schemas of a version of Kubernetes, or skip the test where they are not installed."""
    pattern = f"lib/python3*/site-packages/kubernetes_validate/kubernetes-json-schema/v{version}-local-strict"
    found = sorted(PACKAGES.glob(pattern))
    if not found:
        pytest.skip("the schemas of Kubernetes are not in .tools: make tools")
    for name in (*KINDS, "_definitions"):
        text = (found[0] / f"{name}.json").read_text()
        # Names on the network become names of files beside this one.
        schema = json.loads(text.replace("/api/_definitions.json", "_definitions.json"))
        schema.pop("$id", None)
        (folder / f"{name}.json").write_text(json.dumps(schema))


def write_extensions(folder: Path) -> None:
    """Write the schemas of KEDA and Prometheus Operator, or skip the test where Go has not got them."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("go is not installed, so the schemas of extensions are not there: make tools")
    words = [go, "env", "GOMODCACHE"]
    cache = Path(subprocess.run(words, capture_output=True, text=True, check=True, timeout=30).stdout.strip())
    makefile = (ROOT / "Makefile").read_text()
    for name, module, variable, path in EXTENSIONS:
        pinned = re.search(rf"^{variable} := (\S+)$", makefile, re.MULTILINE)
        assert pinned
        file = cache / f"{module}@{pinned[1]}" / path
        if not file.exists():
            pytest.skip(f"{module} is not in Go's cache: make tools")
        version = name.rpartition("-")[2]
        versions = yaml.safe_load(file.read_text())["spec"]["versions"]
        (schema,) = [one["schema"]["openAPIV3Schema"] for one in versions if one["name"] == version]
        (folder / f"{name}.json").write_text(json.dumps(strict(schema)))


def strict(schema: Any) -> Any:
    """Return a schema that refuses fields that it does not name, as strict validation in a cluster."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: strict(value) for key, value in schema.items()}
    # `metadata` of an extension has no fields in its schema.
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        closed.setdefault("additionalProperties", False)
    return closed
