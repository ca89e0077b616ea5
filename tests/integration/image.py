"""The service's container image, built and called without a Docker engine: `make image-test`.

Not collected by a plain `pytest`: the build takes minutes, root, and Debian's buildah and debootstrap.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convvae import Client
from support.tiny_bundle import LATENT_DIM, SHAPE, publish_tiny

ROOT = Path(__file__).parents[2]
COMPUTE = os.environ.get("COMPUTE", "cpu")
IMAGE = f"localhost/convvae:{COMPUTE}"
BUILD_TIMEOUT_S = 1800.0
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0

pytestmark = pytest.mark.timeout(BUILD_TIMEOUT_S + 60)


def buildah(*words: str | Path, timeout_s: float = 300.0) -> str:
    """Run buildah on the store of deploy/build-image, and return what it printed."""
    done = subprocess.run(
        [ROOT / "deploy" / "buildah", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    assert done.returncode == 0, f"buildah {words[0]}: {done.stderr}"
    return done.stdout.strip()


def run_in(container: str, command: Sequence[str], *options: str | Path) -> list[str | Path]:
    """Return the command line that runs `command` in a container of the image."""
    return [ROOT / "deploy" / "buildah", "run", *options, container, "--", *command]


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback interface that are free now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(s.getsockname()[1]) for s in sockets]
    for s in sockets:
        s.close()
    return ports


def moved(command: Sequence[str], target: str, metrics: str) -> list[str]:
    """Return the image's own command with other addresses: containers share the host's network here."""
    addresses = {"0.0.0.0:50051": target, "127.0.0.1:50051": target, "0.0.0.0:9464": metrics}
    return [addresses.get(word, word) for word in command]


def descendants(pid: int) -> list[int]:
    """Return the processes below `pid`, nearest first."""
    # Each thread lists the processes that it started.
    threads = Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(word) for thread in threads for word in thread.read_text().split()]
    return children + [below for child in children for below in descendants(child)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Image:
    """The image as built: its configuration, and its files, seen from outside."""

    config: dict[str, Any]
    root: Path
    container: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Running:
    """The image's own command, running. `pid` is the server's, below the buildah process."""

    buildah: subprocess.Popen[bytes]
    pid: int
    target: str
    metrics: str
    log: Path


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """The image, built from the working tree, with one container to look at and to run in."""
    # This environment's Python has pip, which the system's may lack.
    environ = os.environ | {"PYTHON": sys.executable}
    subprocess.run([ROOT / "deploy" / "build-image", IMAGE], env=environ, check=True, timeout=BUILD_TIMEOUT_S)
    container = buildah("from", "--pull-never", IMAGE)
    try:
        config = json.loads(buildah("inspect", "--type", "image", IMAGE))["Docker"]["config"]
        yield Image(config=config, root=Path(buildah("mount", container)), container=container)
    finally:
        buildah("rm", container)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the model `tiny`, readable by others as a mounted volume must be."""
    root = tmp_path_factory.mktemp("models")
    publish_tiny(root)
    for path in (root, *root.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return root


@pytest.fixture
def running(image: Image, models: Path, tmp_path: Path) -> Iterator[Running]:
    """A healthy server, started by the image's entry point and command, with the models mounted read-only."""
    port, metrics_port = free_ports(2)
    target, metrics = f"127.0.0.1:{port}", f"127.0.0.1:{metrics_port}"
    command = moved([*image.config["Entrypoint"], *image.config["Cmd"]], target, metrics)
    volume = f"{models}:/models:ro"
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            run_in(image.container, command, "--volume", volume),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while "serving" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline_s, log.read_text()
            time.sleep(0.05)
        yield Running(
            buildah=process, pid=descendants(process.pid)[-1], target=target, metrics=metrics, log=log
        )
    finally:
        # The server is the farthest; when it ends, buildah's own processes clear up and end too.
        for pid in reversed([process.pid, *descendants(process.pid)] if process.poll() is None else []):
            os.kill(pid, signal.SIGKILL)
            try:
                process.wait(5)
                break
            except subprocess.TimeoutExpired:
                continue


def test_configuration(image: Image) -> None:
    """The image says how to run it: not as root, the command, the health check, the signal, the ports."""
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", image.config["User"])
    assert image.config["Entrypoint"] == ["convvae-serve"]
    assert image.config["Cmd"][0] == "run"
    assert image.config["Healthcheck"]["Test"][:3] == ["CMD", "convvae", "health"]
    assert image.config["StopSignal"] == "SIGTERM"
    assert set(image.config["ExposedPorts"]) == {"50051/tcp", "9464/tcp"}
    assert not image.config.get("Volumes")
    labels = image.config["Labels"]
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.opencontainers.image.version"]


def test_contents(image: Image) -> None:
    """The image holds what serves and nothing that builds: no torch, compiler, pip, wheel or cache."""
    packages = next((image.root / "opt/convvae/lib").glob("python3.*/site-packages"))
    present = {path.name for path in packages.iterdir()}
    assert {"convvae", "convvae_service", "onnxruntime", "grpc"} <= present
    assert not present & {"torch", "onnx", "pip", "setuptools", "hatchling", "pytest", "grpc_tools"}
    for folder in ("usr/bin", "usr/local/bin", "opt/convvae/bin"):
        programs = {path.name for path in (image.root / folder).glob("*")}
        assert not programs & {"cc", "gcc", "g++", "c++", "clang", "ld", "as", "make", "cargo", "go"}
        assert folder != "opt/convvae/bin" or not programs & {"pip", "pip3"}
    for absent in ("src", "project", "opt/build", "root/.cache", "etc/pip.conf", "etc/pip-ca.crt"):
        assert not (image.root / absent).exists()
    assert not [*image.root.glob("opt/**/*.whl")]
    assert not [*image.root.glob("var/lib/apt/lists/*_Packages*")]


def test_size(image: Image) -> None:
    """The image stays small: 500 MB for the CPU. Prints what it is."""
    files = [path.lstat() for path in image.root.rglob("*") if path.is_file() or path.is_symlink()]
    size = sum({status.st_ino: status.st_size for status in files}.values()) / 1e6
    project = sum(p.stat().st_size for p in (image.root / "opt/convvae").rglob("*") if p.is_file()) / 1e6
    print(f"\n{IMAGE}: {size:.0f} MB, of which /opt/convvae {project:.0f} MB")
    assert COMPUTE != "cpu" or size < 500


def test_answers_the_client(image: Image, running: Running) -> None:
    """A client outside gets latents, samples and reconstructions from the server in the container."""
    images = np.random.default_rng(0).integers(0, 256, (5, *SHAPE.as_tuple), np.uint8)
    with Client(running.target) as vae:
        encoded = vae.encode(images)
        sampled = vae.sample(3, seed=7)
        again = vae.sample(3, seed=7)
        reconstructed = vae.reconstruct(images)
    assert (encoded.model, encoded.version) == ("tiny", 1)
    assert encoded.mean.shape == (5, LATENT_DIM)
    assert sampled.images.shape == (3, *SHAPE.as_tuple)
    np.testing.assert_array_equal(sampled.images, again.images)
    assert reconstructed.images.shape == images.shape
    assert reconstructed.images.dtype == np.uint8


def test_serves_metrics(running: Running) -> None:
    """The metrics port answers Prometheus."""
    with urllib.request.urlopen(f"http://{running.metrics}/metrics", timeout=10) as reply:
        assert "convvae" in reply.read().decode()


def test_is_not_root(image: Image, running: Running) -> None:
    """The server's process has the image's user and group and no capability, and cannot write the models."""
    user, group = image.config["User"].split(":")
    status = Path(f"/proc/{running.pid}/status").read_text()
    assert re.search(r"^Uid:\s+(.*)", status, re.M)[1].split() == [user] * 4  # type: ignore[index]
    assert re.search(r"^Gid:\s+(.*)", status, re.M)[1].split() == [group] * 4  # type: ignore[index]
    assert re.search(r"^CapEff:\s+(\w+)", status, re.M)[1].strip("0") == ""  # type: ignore[index]
    mounts = Path(f"/proc/{running.pid}/mountinfo").read_text().splitlines()
    options = [line.split()[5] for line in mounts if line.split()[4].endswith("/models")]
    assert options
    assert all("ro" in option.split(",") for option in options)


def test_health_check(image: Image, running: Running) -> None:
    """The image's own health check, run within the container, passes beside the server, and fails without."""
    check = moved(image.config["Healthcheck"]["Test"][1:], running.target, running.metrics)
    healthy = subprocess.run(run_in(image.container, check), capture_output=True, text=True, timeout=30)
    assert healthy.returncode == 0, healthy.stdout + healthy.stderr
    os.kill(running.pid, signal.SIGTERM)
    running.buildah.wait(STOP_TIMEOUT_S)
    stopped = subprocess.run(run_in(image.container, check), capture_output=True, text=True, timeout=30)
    assert stopped.returncode != 0, stopped.stdout + stopped.stderr


def test_drains(running: Running) -> None:
    """After SIGTERM calls in flight are answered, new ones are refused, and the exit code is 0."""
    stopping = threading.Event()

    def call() -> int:
        rows = 0
        with Client(running.target) as vae:
            while not stopping.is_set():
                rows += len(vae.sample(16).images)
        return rows

    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(call) for _ in range(4)]
        time.sleep(0.5)
        os.kill(running.pid, signal.SIGTERM)
        # Within the drain delay the server still answers.
        time.sleep(0.5)
        stopping.set()
        assert all(future.result(STOP_TIMEOUT_S) > 0 for future in calls)
    assert running.buildah.wait(STOP_TIMEOUT_S) == 0, running.log.read_text()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(running.target.rpartition(":")[2])), timeout=5)
