"""The files under deploy/ agree with the programs they start and with one another."""

import configparser
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

from convvae.program.exit_codes import ExitCode
from convvae_service.errors import StartupError
from convvae_service.server.health import LIVENESS
from convvae_service.settings.environment import ENV_PREFIX
from convvae_service.settings.loader import load_settings
from convvae_service.settings.serve import ServeSettings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = DEPLOY / "service.Dockerfile"
TRAINER = DEPLOY / "trainer.Dockerfile"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def instructions(dockerfile: Path = DOCKERFILE) -> list[tuple[str, str]]:
    """Return the Dockerfile's (instruction, arguments), continued lines joined, comments left out."""
    lines = [line for line in dockerfile.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def last(instruction: str, dockerfile: Path = DOCKERFILE) -> str:
    """Return the arguments of the last such instruction, which is the one of the final stage."""
    return [rest for word, rest in instructions(dockerfile) if word == instruction][-1]


def mounts(service: dict[str, Any]) -> dict[str, tuple[str, bool]]:
    """Return (source, read-only?) of each volume by its target, in either form that compose has."""
    found = {}
    for volume in service["volumes"]:
        if isinstance(volume, str):
            source, target, *mode = volume.split(":")
            found[target] = (source, mode == ["ro"])
        else:
            found[volume["target"]] = (volume["source"], volume.get("read_only", False))
    return found


@pytest.fixture(scope="module")
def server() -> dict[str, Any]:
    """The server of the compose file."""
    return SERVICES["server"]


def test_compose_has_these_services() -> None:
    """The server and what watches it start by default; the trainer only when it is asked for."""
    assert {name: service.get("profiles") for name, service in SERVICES.items()} == {
        "server": None,
        "trainer": ["train"],
        "prometheus": None,
        "grafana": None,
    }


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
    assert str(settings.models) in mounts(server)
    assert settings.watch
    published = {port.rpartition(":")[2] for port in server["ports"]}
    assert published == {a.rpartition(":")[2] for a in (*settings.address, settings.metrics_address)}


def test_an_unknown_flag_would_be_found(server: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks above are not blind: the server refuses flags and variables that it does not have."""
    flags = server["command"][1:]
    with pytest.raises(StartupError, match="has no option --lane: did you mean --lanes"):
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
    assert done.returncode == ExitCode.NO_ANSWER
    limit_s = float(words[words.index("--timeout") + 1])
    assert limit_s < float(server["healthcheck"]["timeout"].rstrip("s"))


@pytest.mark.parametrize(("name", "dockerfile"), [("server", DOCKERFILE), ("trainer", TRAINER)])
def test_compose_builds_its_dockerfile(name: str, dockerfile: Path) -> None:
    """The build section names files that exist and arguments that the Dockerfile declares."""
    build = SERVICES[name]["build"]
    context = (DEPLOY / build["context"]).resolve()
    assert context == ROOT
    assert context / build["dockerfile"] == dockerfile
    declared = {rest.partition("=")[0] for word, rest in instructions(dockerfile) if word == "ARG"}
    assert set(build["args"]) <= declared


@pytest.mark.parametrize("name", SERVICES)
def test_compose_is_closed(name: str) -> None:
    """No container has privileges, is root, writes to its root, or is reached from other machines."""
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    if "build" in service:
        user = last("USER", (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).resolve())
    else:
        user = service["user"]
        assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+", service["image"]), "the image has no exact version"
    assert int(user.partition(":")[0]) > 0


def test_the_server_writes_nothing(server: dict[str, Any]) -> None:
    """All that the server sees of the machine is read-only."""
    assert all(is_read_only for _, is_read_only in mounts(server).values())
    assert "tmpfs" not in server


def test_prometheus_and_grafana_find_what_they_read(server: dict[str, Any]) -> None:
    """Their addresses are those of compose services; a fixed target stays one when its server is gone."""
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text())
    (job,) = config["scrape_configs"]
    port = load_settings(server["command"][1:]).metrics_address.rpartition(":")[2]
    assert (job["job_name"], job["static_configs"]) == ("convvae", [{"targets": [f"server:{port}"]}])
    (source,) = yaml.safe_load((DEPLOY / "dashboards" / "datasource.yaml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((DEPLOY / "dashboards" / "provider.yaml").read_text())["providers"]
    assert f"{provider['options']['path']}/convvae.json" in mounts(SERVICES["grafana"])


def test_compose_mounts_exist() -> None:
    """Each mounted file is in the repository and read-only; each named volume is declared and used."""
    sources = [pair for service in SERVICES.values() for pair in mounts(service).values()]
    files = [(source, is_read_only) for source, is_read_only in sources if source.startswith(".")]
    assert files
    for source, is_read_only in files:
        assert (DEPLOY / source).exists(), source
        assert is_read_only
    assert {source for source, _ in sources if re.fullmatch(r"\w+", source)} == set(COMPOSE["volumes"])


def test_the_trainer_publishes_where_the_server_reads(server: dict[str, Any]) -> None:
    """Both mount the same folder at /models, the trainer may write to it, and the server follows it."""
    trainer = SERVICES["trainer"]
    assert mounts(trainer)["/models"][0] == mounts(server)["/models"][0]
    assert not mounts(trainer)["/models"][1]
    assert "--models=/models" in trainer["command"]
    assert server["environment"]["CONVVAE_SERVE_WATCH"] == "true"


def test_the_trainer_s_command_is_accepted(tmp_path: Path) -> None:
    """`convvae-train` understands the compose file's arguments, and refuses only the folder of this test."""
    assert json.loads(last("ENTRYPOINT", TRAINER)) == ["convvae-train"]
    not_a_folder = tmp_path / "file"
    not_a_folder.touch()
    words = [
        word.replace("/runs/${RUN:-digits}", f"{not_a_folder}/run").replace("/models", f"{tmp_path}/models")
        for word in SERVICES["trainer"]["command"]
    ]
    command = [sys.executable, "-m", "convvae_trainer", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert str(not_a_folder) in done.stderr
    assert "No such option" not in done.stderr


def test_compose_waits_for_the_drain(server: dict[str, Any]) -> None:
    """Docker kills the server only after the drain delay and the grace are over."""
    settings = ServeSettings.model_fields
    stop_s = settings["drain_delay_s"].default + settings["grace_s"].default
    assert float(server["stop_grace_period"].rstrip("s")) > stop_s


def test_the_unit_of_systemd_fits_the_server() -> None:
    """Its command is accepted, its times last for start and drain, and exit code 2 is not tried again."""
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string((DEPLOY / "convvae.service").read_text())
    service = unit["Service"]
    program, *arguments = shlex.split(service["ExecStart"])
    assert Path(program).name == "convvae-serve"
    settings = load_settings(arguments)
    (address,) = settings.address
    assert address.startswith(f"unix:/run/{service['RuntimeDirectory']}/")
    assert service["Type"] == "notify"
    assert service["User"] != "root"
    assert float(service["TimeoutStartSec"]) > 2 * settings.load_timeout_s
    assert float(service["TimeoutStopSec"]) >= settings.drain_delay_s + settings.grace_s + 10
    assert int(service["RestartPreventExitStatus"]) == ExitCode.REFUSED
    assert int(service["LimitNOFILE"]) > settings.max_connections
    assert service["KillMode"] == "mixed"


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


@pytest.mark.parametrize("dockerfile", [DOCKERFILE, TRAINER], ids=["service", "trainer"])
def test_image_is_not_root_and_has_no_shell_in_between(dockerfile: Path) -> None:
    """The user is a number above 0, and every command is in exec form, so that signals arrive."""
    assert all(int(part) > 0 for part in last("USER", dockerfile).split(":"))
    for instruction in ("ENTRYPOINT", "CMD"):
        assert last(instruction, dockerfile).startswith("[")
    assert last("STOPSIGNAL", dockerfile) == "SIGTERM"


def test_health_check_has_no_shell_in_between() -> None:
    """The server's image runs its check in exec form."""
    assert "CMD [" in last("HEALTHCHECK")


@pytest.mark.parametrize("dockerfile", [DOCKERFILE, TRAINER], ids=["service", "trainer"])
def test_dockerfile_copies_what_the_context_holds(dockerfile: Path) -> None:
    """Each file copied from the context exists and is let through by .dockerignore."""
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    words_of = [rest for word, rest in instructions(dockerfile) if word == "COPY" and "--from" not in rest]
    copied = [shlex.split(rest) for rest in words_of]
    sources = [source for words in copied for source in words[:-1]]
    sources += re.findall(r"--mount=type=bind,source=([^,]+)", dockerfile.read_text())
    assert "pyproject.toml" in sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert any(source == path or source.startswith(f"{path}/") for path in allowed), source


@pytest.mark.parametrize("part", ["service", "trainer"])
@pytest.mark.parametrize("compute", ["cpu", "gpu"])
def test_image_installs_the_project_s_dependencies(part: str, compute: str) -> None:
    """The list that the image installs is the base, the extra of its part and one ONNX Runtime."""
    program = DEPLOY / "requirements.py"
    words: list[str | Path] = [sys.executable, program, ROOT / "pyproject.toml", part, compute]
    listed = subprocess.run(words, capture_output=True, text=True, check=True, timeout=30).stdout.splitlines()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert listed == project["dependencies"] + extras[part] + extras[compute]
    assert sum(line.startswith("onnxruntime") for line in listed) == 1


@pytest.mark.parametrize("script", ["build-image", "buildah"])
def test_scripts_are_sound(script: str) -> None:
    """The scripts can be run, stop at the first error, and parse."""
    path = DEPLOY / script
    assert path.stat().st_mode & 0o111
    assert "set -euo pipefail" in path.read_text()
    subprocess.run(["bash", "-n", path], check=True, timeout=30)
