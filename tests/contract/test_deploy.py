"""The files under deploy/ agree with the programs they start and with one another."""

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from convvae_service.errors import StartupError
from convvae_service.server.health import LIVENESS
from convvae_service.settings.environment import ENV_PREFIX
from convvae_service.settings.loader import load_settings
from convvae_service.settings.serve import ServeSettings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = DEPLOY / "service.Dockerfile"


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's (instruction, arguments), continued lines joined, comments left out."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def last(instruction: str) -> str:
    """Return the arguments of the last such instruction, which is the one of the final stage."""
    return [rest for word, rest in instructions() if word == instruction][-1]


@pytest.fixture(scope="module")
def server() -> dict[str, Any]:
    """The only service of the compose file."""
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    assert list(compose["services"]) == ["server"]
    service: dict[str, Any] = compose["services"]["server"]
    return service


def test_dockerfile_command_is_accepted() -> None:
    """The image's command is one that the server understands, and serves /models on all addresses."""
    assert json.loads(last("ENTRYPOINT")) == ["convvae-serve"]
    command, *flags = json.loads(last("CMD"))
    settings = load_settings(flags)
    assert command == "run"
    assert settings.models == Path("/models")
    assert settings.address == ("0.0.0.0:50051",)
    assert settings.metrics_address == "0.0.0.0:9464"
    assert last("EXPOSE").split() == ["50051", "9464"]


def test_compose_command_is_accepted(server: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The compose file's command and variables are settings of the server; its ports are published."""
    command, *flags = server["command"]
    variables = server["environment"]
    assert command == "run"
    assert all(name.startswith(ENV_PREFIX) for name in variables)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    settings = load_settings(flags)
    assert str(settings.models) == server["volumes"][0]["target"]
    published = {port.rpartition(":")[2] for port in server["ports"]}
    assert published == {a.rpartition(":")[2] for a in (*settings.address, settings.metrics_address)}


def test_an_unknown_flag_would_be_found(server: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks above are not blind: the server refuses flags and variables that it does not have."""
    flags = server["command"][1:]
    with pytest.raises(StartupError, match="unrecognized arguments: --lane=2"):
        load_settings([*flags, "--lane=2"])
    monkeypatch.setenv(f"{ENV_PREFIX}LANE", "2")
    with pytest.raises(StartupError, match="LANE"):
        load_settings(flags)


def test_health_checks_are_accepted(server: dict[str, Any]) -> None:
    """Image and compose file run the same check, which the client's command understands and answers."""
    dockerfile = last("HEALTHCHECK").partition("CMD ")[2]
    assert server["healthcheck"]["test"] == ["CMD", *json.loads(dockerfile)]
    program, *words = json.loads(dockerfile)
    words[words.index("127.0.0.1:50051")] = "127.0.0.1:1"
    assert program == "convvae"
    done = subprocess.run(
        [sys.executable, "-m", "convvae", *words], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 2
    assert "No such option" not in done.stderr
    limit_s = float(words[words.index("--timeout") + 1])
    assert limit_s < float(server["healthcheck"]["timeout"].rstrip("s"))


def test_compose_builds_this_dockerfile(server: dict[str, Any]) -> None:
    """The build section names files that exist and arguments that the Dockerfile declares."""
    context = (DEPLOY / server["build"]["context"]).resolve()
    assert context == ROOT
    assert context / server["build"]["dockerfile"] == DOCKERFILE
    declared = {rest.partition("=")[0] for word, rest in instructions() if word == "ARG"}
    assert set(server["build"]["args"]) <= declared


def test_compose_is_closed(server: dict[str, Any]) -> None:
    """The container has no privileges, writes nothing but /tmp, and is reached from this machine alone."""
    assert server["read_only"] is True
    assert server["cap_drop"] == ["ALL"]
    assert server["security_opt"] == ["no-new-privileges:true"]
    assert all(volume["read_only"] for volume in server["volumes"])
    assert all(port.startswith("127.0.0.1:") for port in server["ports"])
    assert "privileged" not in server


def test_compose_waits_for_the_drain(server: dict[str, Any]) -> None:
    """Docker kills the server only after the drain delay and the grace are over."""
    settings = ServeSettings.model_fields
    stop_s = settings["drain_delay_s"].default + settings["grace_s"].default
    assert float(server["stop_grace_period"].rstrip("s")) > stop_s


def test_documented_pod_fits_the_server() -> None:
    """The pod in docs/containers.md probes names that the server reports, and waits for the drain."""
    text = (ROOT / "docs" / "containers.md").read_text()
    pod = yaml.safe_load(text.partition("```yaml\n")[2].partition("```")[0])["spec"]
    settings = ServeSettings.model_fields
    stop_s = settings["drain_delay_s"].default + settings["grace_s"].default
    assert pod["terminationGracePeriodSeconds"] > stop_s
    (container,) = pod["containers"]
    assert container["livenessProbe"]["grpc"] == {"port": 50051, "service": LIVENESS}
    assert container["readinessProbe"]["grpc"] == {"port": 50051}
    assert container["volumeMounts"][0]["mountPath"] == "/models"


def test_image_is_not_root_and_has_no_shell_in_between() -> None:
    """The user is a number above 0, and every command is in exec form, so that signals arrive."""
    assert all(int(part) > 0 for part in last("USER").split(":"))
    for instruction in ("ENTRYPOINT", "CMD"):
        assert last(instruction).startswith("[")
    assert "CMD [" in last("HEALTHCHECK")
    assert last("STOPSIGNAL") == "SIGTERM"


def test_dockerfile_copies_what_the_context_holds() -> None:
    """Each file copied from the context exists and is let through by .dockerignore."""
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [shlex.split(rest) for word, rest in instructions() if word == "COPY" and "--from" not in rest]
    sources = [source for words in copied for source in words[:-1]]
    sources += re.findall(r"--mount=type=bind,source=([^,]+)", DOCKERFILE.read_text())
    assert "pyproject.toml" in sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert any(source == path or source.startswith(f"{path}/") for path in allowed), source


@pytest.mark.parametrize("compute", ["cpu", "gpu"])
def test_image_installs_the_project_s_dependencies(compute: str) -> None:
    """The list that the image installs is the base, the service's extra and one ONNX Runtime."""
    program = DEPLOY / "requirements.py"
    words: list[str | Path] = [sys.executable, program, ROOT / "pyproject.toml", "service", compute]
    listed = subprocess.run(words, capture_output=True, text=True, check=True, timeout=30).stdout.splitlines()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert listed == project["dependencies"] + extras["service"] + extras[compute]
    assert sum(line.startswith("onnxruntime") for line in listed) == 1


@pytest.mark.parametrize("script", ["build-image", "buildah"])
def test_scripts_are_sound(script: str) -> None:
    """The scripts can be run, stop at the first error, and parse."""
    path = DEPLOY / script
    assert path.stat().st_mode & 0o111
    assert "set -euo pipefail" in path.read_text()
    subprocess.run(["bash", "-n", path], check=True, timeout=30)
