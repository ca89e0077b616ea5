"""`make tools`, and what the tools of other languages see of a real server."""

import base64
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from serving import ServerProcess
from tiny_bundle import LATENT_DIM, SHAPE

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / ".tools" / "bin"


def call(tool: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run one of the tools; the test is skipped when it is not there."""
    if not (TOOLS / tool).exists():
        pytest.skip(f"{tool} is not in .tools: run `make tools`")
    return subprocess.run([TOOLS / tool, *words], capture_output=True, text=True, timeout=60)


def grpcurl(*words: str) -> str:
    """Return what grpcurl prints; a failure shows it."""
    done = call("grpcurl", "-plaintext", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def make_tools(tmp_path: Path, toolchains: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run `make tools` in an empty folder, where only `toolchains`, small shell programs, are installed."""
    programs = tmp_path / "programs"
    programs.mkdir(exist_ok=True)
    for name in ("bash", "make", "mkdir", "touch", "rm", "ln"):
        found = shutil.which(name)
        assert found is not None
        (programs / name).unlink(missing_ok=True)
        (programs / name).symlink_to(found)
    for name, program in toolchains.items():
        (programs / name).write_text(f"#!{programs}/bash\n{program}\n")
        (programs / name).chmod(0o755)
    return subprocess.run(
        ["make", "-f", ROOT / "Makefile", "tools"],
        cwd=tmp_path,
        env={"PATH": str(programs)},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_absent_toolchains_are_named(tmp_path: Path) -> None:
    """Without npm and go, `make tools` says what it leaves out, and does not fail."""
    done = make_tools(tmp_path, {})
    assert done.returncode == 0, done.stderr
    for tool, toolchain in (("buf", "npm"), ("grpcurl", "go"), ("grpc-health-probe", "go")):
        assert any(
            line.startswith(f"{tool} ") and line.endswith(f"skipped, {toolchain} is not installed")
            for line in done.stdout.splitlines()
        ), done.stdout


def test_failed_installations_fail(tmp_path: Path) -> None:
    """A toolchain that is there and fails makes `make tools` fail, and the next run tries again."""
    for _ in range(2):
        done = make_tools(tmp_path, {"go": "exit 3"})
        assert done.returncode != 0
        assert done.stdout.count("FAILED") == 2


def test_installed_tools_are_left_alone(tmp_path: Path) -> None:
    """What is installed in its pinned version is not installed again."""
    first = make_tools(tmp_path, {"go": 'echo "go $*"'})
    assert first.returncode == 0, first.stderr
    assert first.stdout.count("go install ") == 2
    second = make_tools(tmp_path, {"go": "exit 3"})
    assert second.returncode == 0, second.stdout
    assert "FAILED" not in second.stdout


def test_grpcurl_lists_the_services(tiny_server: ServerProcess) -> None:
    """Reflection names the contract's service and the health service."""
    services = grpcurl(tiny_server.target, "list").split()
    assert {"convvae.v1.VaeService", "grpc.health.v1.Health"} <= set(services)
    assert "rpc Score (" in grpcurl(tiny_server.target, "describe", "convvae.v1.VaeService")


def test_grpcurl_calls_by_reflection(tiny_server: ServerProcess) -> None:
    """A client that knows nothing but the address encodes an image and draws a sample."""
    pixels = bytes(SHAPE.num_values)
    request = {
        "pixels": {
            "data": base64.b64encode(pixels).decode(),
            "count": 1,
            "height": SHAPE.height,
            "width": SHAPE.width,
            "channels": SHAPE.channels,
        }
    }
    service = "convvae.v1.VaeService"
    encoded = json.loads(grpcurl("-d", json.dumps(request), tiny_server.target, f"{service}/Encode"))
    assert encoded["model"] == {"name": "tiny", "version": "1", "precision": "fp32"}
    mean = np.frombuffer(base64.b64decode(encoded["mean"]["data"]), "<f4")
    np.testing.assert_array_equal(mean, np.zeros(LATENT_DIM, np.float32))
    sampled = json.loads(grpcurl("-d", '{"count": 2, "seed": 7}', tiny_server.target, f"{service}/Sample"))
    assert sampled["seed"] == "7"
    assert len(base64.b64decode(sampled["images"]["data"])) == 2 * SHAPE.num_values


def test_grpcurl_shows_the_wrong_field(tiny_server: ServerProcess) -> None:
    """A refused call tells a client of another language the code and, in the details, the field."""
    request = '{"latents": {"count": 0, "dimension": 4}}'
    done = call(
        "grpcurl",
        "-plaintext",
        "-format-error",
        "-d",
        request,
        tiny_server.target,
        "convvae.v1.VaeService/Decode",
    )
    assert done.returncode != 0
    assert '"code": 3' in done.stderr
    assert "google.rpc.BadRequest" in done.stderr
    assert "latents" in done.stderr


@pytest.mark.parametrize("service", ["", "liveness", "tiny"])
def test_health_probe_finds_the_server_serving(tiny_server: ServerProcess, service: str) -> None:
    """The probe that clusters use passes for the server, its liveness and its model."""
    done = call("grpc-health-probe", f"-addr={tiny_server.target}", f"-service={service}")
    assert done.returncode == 0, done.stderr
    assert "SERVING" in done.stdout + done.stderr


def test_health_probe_does_not_know_other_names(tiny_server: ServerProcess) -> None:
    """The probe fails for a model that is not served."""
    done = call("grpc-health-probe", f"-addr={tiny_server.target}", "-service=other")
    assert done.returncode != 0


def test_buf_finds_a_breaking_change(tmp_path: Path) -> None:
    """With the rules of buf.yaml a new field is no break of the contract, and a removed one is."""
    protos = str(ROOT / "protos")
    changed = tmp_path / "protos"
    shutil.copytree(protos, changed)
    contract = changed / "convvae" / "v1" / "vae.proto"
    text = contract.read_text()
    field = "  optional float temperature = 5;\n"
    assert field in text
    contract.write_text(text.replace(field, f"{field}  // More.\n  bool more = 6;\n"))
    extended = call("buf", "breaking", str(changed), "--against", protos)
    assert extended.returncode == 0, extended.stdout + extended.stderr
    contract.write_text(text.replace(field, ""))
    broken = call("buf", "breaking", str(changed), "--against", protos)
    assert broken.returncode != 0
    assert "temperature" in broken.stdout
