"""The files for KServe have fields that KServe has, and start the service as KServe expects it."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from convvae_service.server.health import LIVENESS
from convvae_service.settings.loader import load_settings
from convvae_service.settings.serve import ServeSettings

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "deploy" / "kserve"
PYTHON = ROOT / ".tools" / "kserve-venv" / "bin" / "python"
PROGRAM = Path(__file__).parent / "kserve_fields.py"


def read(name: str) -> dict[str, Any]:
    """Return one of the manifests."""
    found: dict[str, Any] = yaml.safe_load((FOLDER / name).read_text())
    return found


def fields(*manifests: Path) -> list[str]:
    """Return the faults that KServe's classes find, or skip the test where KServe is not installed."""
    if not PYTHON.exists():
        pytest.skip("kserve is not in .tools: run `make tools`")
    done = subprocess.run(
        [PYTHON, "-I", PROGRAM, *manifests], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_fields_are_those_of_kserve() -> None:
    """Both manifests have only fields of KServe's classes, of their types, and all that are required."""
    assert fields(*sorted(FOLDER.glob("*.yaml"))) == []


def test_wrong_fields_would_be_found(tmp_path: Path) -> None:
    """The check above is not blind: it finds an unknown field, a missing one and a wrong type by path."""
    runtime = read("runtime.yaml")
    (container,) = runtime["spec"]["containers"]
    runtime["spec"]["protocols"] = runtime["spec"].pop("protocolVersions")
    container["ports"][0]["containerPort"] = "9000"
    del container["name"]
    (tmp_path / "runtime.yaml").write_text(yaml.safe_dump(runtime))
    found = "\n".join(fields(tmp_path / "runtime.yaml"))
    assert "ClusterServingRuntime.spec.protocols: no such field" in found
    assert "ClusterServingRuntime.spec.containers[0].ports[0].containerPort: not int" in found
    assert re.search(r"spec\.containers\[0\]: .* V1Container\nname\n +Field required", found)


def test_the_runtime_starts_the_service() -> None:
    """The container's arguments are settings of the server, with the mount and the name of KServe."""
    spec = read("runtime.yaml")["spec"]
    (container,) = spec["containers"]
    name = read("service.yaml")["metadata"]["name"]
    command, *flags = [word.replace("{{.Name}}", name) for word in container["args"]]
    settings = load_settings(flags)
    assert command == "run"
    assert settings.models == Path("/mnt/models")
    assert settings.model_name == "digits-vae"
    (port,) = container["ports"]
    assert port["name"] == "h2c"
    assert settings.address == (f"0.0.0.0:{port['containerPort']}",)
    assert settings.metrics_address.endswith(f":{spec['annotations']['prometheus.kserve.io/port']}")
    assert container["readinessProbe"]["grpc"] == {"port": port["containerPort"]}
    assert container["livenessProbe"]["grpc"] == {"port": port["containerPort"], "service": LIVENESS}
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["runAsNonRoot"] is True


def test_the_example_fits_the_runtime() -> None:
    """The InferenceService asks for a format and a protocol that the runtime has, and waits for the drain."""
    spec = read("runtime.yaml")["spec"]
    predictor = read("service.yaml")["spec"]["predictor"]
    model = predictor["model"]
    assert model["modelFormat"]["name"] in [one["name"] for one in spec["supportedModelFormats"]]
    assert model["protocolVersion"] in spec["protocolVersions"]
    defaults = ServeSettings.model_fields
    assert predictor["terminationGracePeriodSeconds"] > (
        defaults["drain_delay_s"].default + defaults["grace_s"].default
    )
