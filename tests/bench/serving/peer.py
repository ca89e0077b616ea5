"""Servers of other projects with the same encoder, each in an environment of its own (`make bench-peers`)."""

import json
import os
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bench.serving.callers import Callers
from bench.serving.cell import Cell
from bench.serving.checkout import ROOT
from bench.serving.connection import CallFailed
from bench.serving.connections import connect
from bench.serving.messages import images_of
from bench.serving.request import Request
from bench.serving.server import Batches, callers_of
from open_inference import inference_pb2

__all__ = ["PEERS", "Peer", "PeerServer", "launched_peer"]

ENVIRONMENTS = ROOT / ".tools" / "peers"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 5.0
MODULES = "bench.serving.peers"


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A server of another project.

    Attributes:
        name: Of the package, and of its environment.
        path: Of the call.
        command: Arguments of its interpreter, given the port and an empty folder.
        protocol: `http` or `grpc`.
    """

    name: str
    path: str
    command: Callable[[int, Path], list[str]]
    protocol: str = "http"

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return ENVIRONMENTS / self.name / "bin" / "python"

    def left_out(self) -> str:
        """Return why it cannot be measured; empty if it can."""
        if list(ENVIRONMENTS.glob(f"{self.name}==*.installed")):
            return ""
        return "it is not in .tools/peers, or could not be installed: run `make bench-peers`"

    def version(self) -> str:
        """Return the installed version."""
        code = f"import importlib.metadata as m; print(m.version({self.name!r}))"
        return subprocess.check_output([str(self.python), "-c", code], text=True).strip()

    def request(self, cell: Cell) -> Request:
        """Return the request of a cell: the pixels as they are."""
        images = images_of(cell)
        if self.protocol == "http":
            return Request(protocol="http", path=self.path, body=images.tobytes())
        return Request(
            protocol="grpc", path=self.path, body=_open_inference(list(images.reshape(cell.rows, -1)))
        )


@dataclass(frozen=True)
class PeerServer:
    """A peer that runs."""

    peer: Peer
    target: str
    pid: int
    counts: Path

    @property
    def name(self) -> str:
        """Its name in the report."""
        return self.peer.name

    def batches(self) -> Batches:
        """Read what its encoder has counted."""
        return Batches(*struct.unpack("<dd", self.counts.read_bytes()))

    def serves(self, cell: Cell) -> bool:
        """Return whether it can answer the cell's call."""
        return cell.method == "Encode" and cell.graph == Cell.graph and cell.via == Cell.via

    def callers(self, cell: Cell) -> Callers:
        """Return callers that are connected and make this cell's call."""
        return callers_of(self.target, self.peer.request(cell), cell.callers)


@contextmanager
def launched_peer(peer: Peer, graph: Path, folder: Path) -> Iterator[PeerServer]:
    """Start a peer in an empty folder, and give it when it has answered a call.

    Raises:
        RuntimeError: It does not start; the message ends with its log.
    """
    counts, log, port = folder / "counts", folder / "server.log", _free_port()
    counts.write_bytes(bytes(16))
    environ = {
        **os.environ,
        "PATH": os.pathsep.join((str(peer.python.parent), os.environ["PATH"])),
        "PYTHONPATH": str(ROOT / "tests"),
        "PEER_PORT": str(port),
        "PEER_GRAPH": str(graph.resolve()),
        "PEER_COUNTS": str(counts),
        "BENTOML_DO_NOT_TRACK": "True",
        "BENTOML_HOME": str(folder),
    }
    words = [str(peer.python), *peer.command(port, folder)]
    with log.open("wb") as file:
        process = subprocess.Popen(
            words, stdout=file, stderr=file, env=environ, cwd=folder, start_new_session=True
        )
    try:
        server = PeerServer(peer, f"127.0.0.1:{port}", process.pid, counts)
        _wait_for_answer(server, process, log)
        yield server
    finally:
        # Some leave their workers behind, so the whole group is ended.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_TIMEOUT_S)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_for_answer(server: PeerServer, process: "subprocess.Popen[bytes]", log: Path) -> None:
    request = server.peer.request(Cell(method="Encode"))
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s and process.poll() is None:
        with suppress(OSError, CallFailed):
            connection = connect(server.target, request)
            try:
                return connection.call()
            finally:
                connection.close()
        time.sleep(0.1)
    raise RuntimeError(f"{server.name} did not start:\n{log.read_text()[-2000:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _open_inference(rows: list[bytes]) -> bytes:
    # Elements of the type BYTES, each after its length.
    tensor = inference_pb2.ModelInferRequest.InferInputTensor(
        name="image", datatype="BYTES", shape=[len(rows), 1]
    )
    raw = b"".join(len(row).to_bytes(4, "little") + bytes(row) for row in rows)
    request = inference_pb2.ModelInferRequest(model_name="encoder", inputs=[tensor], raw_input_contents=[raw])
    return request.SerializeToString()


def _mosec(port: int, folder: Path) -> list[str]:
    return [
        "-m",
        f"{MODULES}.on_mosec",
        "--address",
        "127.0.0.1",
        "--port",
        str(port),
        "--log-level",
        "warning",
    ]


def _litserve(port: int, folder: Path) -> list[str]:
    return ["-m", f"{MODULES}.on_litserve"]


def _bentoml(port: int, folder: Path) -> list[str]:
    service = f"{MODULES}.on_bentoml:EncoderService"
    return ["-m", "bentoml", "serve", "--host", "127.0.0.1", "--port", str(port), service]


def _mlserver(port: int, folder: Path) -> list[str]:
    model = {
        "name": "encoder",
        "implementation": f"{MODULES}.on_mlserver.EncoderModel",
        "max_batch_size": 16,
        "max_batch_time": 0.001,
    }
    settings = {
        "host": "127.0.0.1",
        "grpc_port": port,
        "http_port": _free_port(),
        "metrics_endpoint": None,
        "parallel_workers": 0,
        "debug": False,
        "grpc_max_message_length": 1 << 26,
    }
    (folder / "model-settings.json").write_text(json.dumps(model))
    (folder / "settings.json").write_text(json.dumps(settings))
    return ["-c", "from mlserver.cli import main; main()", "start", str(folder)]


PEERS = [
    Peer(name="mosec", path="/inference", command=_mosec),
    Peer(name="litserve", path="/predict", command=_litserve),
    Peer(name="bentoml", path="/encode", command=_bentoml),
    Peer(
        name="mlserver",
        path="/inference.GRPCInferenceService/ModelInfer",
        command=_mlserver,
        protocol="grpc",
    ),
]
