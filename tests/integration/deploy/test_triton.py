"""Triton's own server loads what `convvae-train triton` writes, and answers as the graphs do.

The server is that of pytriton's wheel: Triton's core with its Python backend, and no ONNX Runtime backend.
Here `onnxruntime_backend.py` has that backend's name. Triton itself reads the repository, warms the models
up, checks requests and batches them. Only the program that runs a graph is not Triton's.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from support.waiting import wait_until

TOOLS = Path(__file__).parents[3] / ".tools" / "nvidia-pytriton-venv"
ROWS = 4
DELAY_US = 300_000
SHAPE = (10, 12, 3)


class Triton:
    """Triton's server, in a process of its own, with its log in a file."""

    def __init__(self, repository: Path, backends: Path, packages: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self.log = backends / f"{repository.name}.log"
        words: list[str | Path] = [
            packages / "pytriton/tritonserver/bin/tritonserver",
            f"--model-repository={repository}",
            f"--backend-directory={backends}",
            # As an operator has it: a config that is not complete, or a model that fails, ends the start.
            "--disable-auto-complete-config",
            "--exit-on-error=true",
            "--http-address=127.0.0.1",
            f"--http-port={self.address.rpartition(':')[2]}",
            "--allow-grpc=false",
            "--allow-metrics=false",
        ]
        libraries = (packages / "nvidia_pytriton.libs", sysconfig.get_config_var("LIBDIR"))
        environ = {**os.environ, "LD_LIBRARY_PATH": ":".join(map(str, libraries)), "PACKAGES": str(packages)}
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(words, stdout=output, stderr=output, env=environ)

    def get(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """Return the answer to a request, parsed."""
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(f"http://{self.address}/v2/{path}", data, timeout=20) as reply:
            return json.loads(reply.read() or "null")

    def is_ready(self) -> bool:
        """Tell whether all models are loaded."""
        try:
            self.get("health/ready")
        except OSError:
            assert self.process.poll() is None, self.log.read_text()
            return False
        return True

    def infer(self, model: str, name: str, datatype: str, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return the outputs of a model by name."""
        tensor = {"name": name, "datatype": datatype, "shape": rows.shape, "data": rows.ravel().tolist()}
        outputs = self.get(f"models/{model}/infer", {"inputs": [tensor]})["outputs"]
        return {each["name"]: np.array(each["data"]).reshape(each["shape"]) for each in outputs}


@pytest.fixture(scope="module")
def packages() -> Path:
    """The packages of the environment that has pytriton."""
    found = [*TOOLS.glob("lib/python3.*/site-packages/pytriton")]
    if not found:
        pytest.skip("pytriton is not installed: make tools")
    return found[0].parent


@pytest.fixture(scope="module")
def repository(zoo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of Triton as the command writes it."""
    out = tmp_path_factory.mktemp("triton") / "repository"
    words = ["triton", str(zoo_root / "colour"), f"--out={out}", "--kind=cpu", f"--max-batch-size={ROWS}"]
    words += [f"--max-queue-delay-us={DELAY_US}"]
    subprocess.run([sys.executable, "-m", "convvae_trainer", *words], check=True, timeout=120)
    return out


@pytest.fixture(scope="module")
def server(packages: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    """Triton's server of the repository, with the backend of this folder."""
    backends = tmp_path_factory.mktemp("backends")
    parts = packages / "pytriton" / "tritonserver"
    stub = parts / "python_backend_stubs" / packages.parent.name.removeprefix("python")
    if not stub.exists():
        pytest.skip("pytriton has no backend for this version of Python")
    shutil.copytree(parts / "backends" / "python", backends / "python")
    shutil.copytree(stub, backends / "python", dirs_exist_ok=True)
    (backends / "onnxruntime").mkdir()
    shutil.copy(Path(__file__).with_name("onnxruntime_backend.py"), backends / "onnxruntime" / "model.py")
    started = Triton(repository, backends, packages)
    try:
        wait_until(started.is_ready, within_s=60)
        yield started
    finally:
        started.process.terminate()
        started.process.wait(60)


@pytest.mark.slow
def test_triton_loads_and_warms_up_what_is_written(server: Triton) -> None:
    """Both models are ready, with the config's batching and instances, and have run their warm-up."""
    for model in ("colour.encoder", "colour.decoder"):
        config = server.get(f"models/{model}/config")
        assert config["platform"] == "onnxruntime_onnx"
        assert config["max_batch_size"] == ROWS
        assert [each["batch_size"] for each in config["model_warmup"]] == [1, ROWS]
        assert config["instance_group"][0]["kind"] == "KIND_CPU"
        assert config["dynamic_batching"]["max_queue_delay_microseconds"] == DELAY_US
        assert server.get(f"models/{model}")["versions"] == ["1"]


@pytest.mark.slow
def test_triton_answers_as_the_graphs_do(server: Triton, repository: Path) -> None:
    """Means and images of several rows are those of the graphs that the bundle has."""
    images = np.random.default_rng(0).integers(0, 256, (3, *SHAPE), np.uint8)
    answers = server.infer("colour.encoder", "image", "UINT8", images)
    assert set(answers) == {"mean", "log_variance"}
    for model, name, datatype, rows in (
        ("colour.encoder", "image", "UINT8", images),
        ("colour.decoder", "latent", "FP32", answers["mean"].astype(np.float32)),
    ):
        session = onnxruntime.InferenceSession(
            repository / model / "1" / "model.onnx", providers=["CPUExecutionProvider"]
        )
        wanted = dict(
            zip([each.name for each in session.get_outputs()], session.run(None, {name: rows}), strict=True)
        )
        found = server.infer(model, name, datatype, rows)
        assert found.keys() == wanted.keys()
        for output, values in wanted.items():
            np.testing.assert_allclose(found[output], values, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_triton_batches_calls(server: Triton) -> None:
    """Rows of calls that arrive within the delay run together."""

    def executions() -> int:
        (stats,) = server.get("models/colour.encoder/stats")["model_stats"]
        return int(stats["execution_count"])

    row, before = np.zeros((1, *SHAPE), np.uint8), executions()
    with ThreadPoolExecutor(ROWS) as pool:
        list(pool.map(lambda _: server.infer("colour.encoder", "image", "UINT8", row), range(ROWS)))
    assert executions() - before < ROWS


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ((ROWS + 1, *SHAPE), "inference request batch-size must be <= 4"),
        ((1, 12, 10, 3), "unexpected shape for input 'image'"),
    ],
)
def test_triton_refuses_what_the_config_does_not_take(
    server: Triton, shape: tuple[int, ...], reason: str
) -> None:
    """More rows than a batch, and images of another size, never reach the graph."""
    with pytest.raises(urllib.error.HTTPError) as refused:
        server.infer("colour.encoder", "image", "UINT8", np.zeros(shape, np.uint8))
    assert reason in refused.value.read().decode()


@pytest.mark.slow
def test_a_wrong_config_would_be_found(packages: Path, repository: Path, tmp_path: Path) -> None:
    """Triton's core takes our files but for the backend, which is absent here, and no field that it lacks."""
    for number, text in enumerate(("", "max_batch_rows: 4\n")):
        changed = tmp_path / f"repository-{number}"
        shutil.copytree(repository, changed)
        config = changed / "colour.encoder" / "config.pbtxt"
        config.write_text(config.read_text() + text)
        server = Triton(changed, tmp_path, packages)
        assert server.process.wait(60) != 0
        log = server.log.read_text()
        assert ('has no field named "max_batch_rows"' in log) == bool(text)
        assert "unable to find backend library for backend 'onnxruntime'" in log
