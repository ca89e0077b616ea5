"""Record calls of an older commit: its model, the bytes that its client sends, and the bytes of its replies.

    python tests/golden/record.py 46ff462 tests/golden/recorded/schema-1

In a checkout of its own, the commit trains a model of 8x8 digits for a few seconds, serves it, and calls it
through a relay that writes everything down. The folder gets `models/`, `protos/` and `calls.json`: for each
call its method, the bytes of its requests and replies in base64, the status, and the details of an error.
Later versions must answer the same requests alike: `tests/integration/test_recorded_calls.py`.
"""

import argparse
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

sys.path.insert(0, str(Path(__file__).parents[1]))
from support.recorded import Call, text_of

ROOT = Path(__file__).parents[2]
CALLER = Path(__file__).parent / "caller.py"
DETAILS = "grpc-status-details-bin"
FIT_S, START_S, CALLS_S, STOP_S = 600, 60, 120, 30
FIT = (
    *("--dataset", "digits", "--image-size", "8", "--width", "2", "--hidden", "8", "--latent-dim", "4"),
    *("--epochs", "40", "--learning-rate", "0.02", "--device", "cpu", "--name", "digits"),
)


class Relay(grpc.GenericRpcHandler):
    """Passes every call on to the server at `target`, whatever its method, and keeps its bytes."""

    def __init__(self, target: str) -> None:
        self.calls: list[Call] = []
        self._channel = grpc.insecure_channel(target)

    def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes]":
        """Return the handler of a method; a unary call is a stream of one message on the wire."""
        method = str(details.method)

        def handle(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            call = Call(method)
            self.calls.append(call)

            def kept() -> Iterator[bytes]:
                for request in requests:
                    call.requests.append(request)
                    yield request

            send: Any = self._channel.stream_stream(method)
            answers = send(kept())
            context.add_callback(answers.cancel)
            try:
                for reply in answers:
                    call.replies.append(reply)
                    yield reply
            except grpc.RpcError:
                if not context.is_active():
                    return
                trailing = dict(answers.trailing_metadata() or ())
                call.code, call.details = answers.code().name, bytes(trailing.get(DETAILS, b""))
                context.set_trailing_metadata(((DETAILS, call.details),) if call.details else ())
                context.abort(answers.code(), answers.details() or "")

        return grpc.stream_stream_rpc_method_handler(handle)


@contextlib.contextmanager
def checkout(commit: str) -> Iterator[Path]:
    """Check a commit out into a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="convvae-record-") as folder:
        path = Path(folder) / "commit"
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", path, commit], cwd=ROOT, check=True)
        try:
            yield path
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", path], cwd=ROOT, check=True)


def environ(source: Path) -> dict[str, str]:
    """Return the environment in which the packages are those of a checkout."""
    folders = (source / name for name in ("protos", "trainer", "service"))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders)), "OMP_NUM_THREADS": "1"}


@contextlib.contextmanager
def served(source: Path, models: Path) -> Iterator[str]:
    """Run the server of a checkout on a free port of the loopback interface."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    words = ("-m", "convvae_service", "run", "--models", str(models), "--address", address)
    flags = ("--metrics-address", "off", "--drain-delay-s", "0", "--log-level", "error")
    server = subprocess.Popen([sys.executable, *words, *flags], env=environ(source), cwd=source)
    try:
        with grpc.insecure_channel(address) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(
                health_pb2.HealthCheckRequest(), timeout=START_S, wait_for_ready=True
            )
            next(state for state in watch if state.status == health_pb2.HealthCheckResponse.SERVING)
        yield address
    finally:
        server.terminate()
        server.wait(STOP_S)


def record(source: Path, out: Path) -> list[Call]:
    """Train, serve and call by the checkout; return the calls."""
    with tempfile.TemporaryDirectory(prefix="convvae-record-") as folder:
        words = ("fit", *FIT, "--run-dir", f"{folder}/run", "--models", str(out / "models"))
        command = [sys.executable, "-m", "convvae_trainer", *words]
        subprocess.run(command, env=environ(source), cwd=source, check=True, timeout=FIT_S)
    for picture in out.rglob("*.png"):
        picture.unlink()
    with served(source, out / "models") as target:
        relay = Relay(target)
        server = grpc.server(ThreadPoolExecutor(8), handlers=[relay])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        command = [sys.executable, str(CALLER), f"127.0.0.1:{port}"]
        subprocess.run(command, env=environ(source), cwd=source, check=True, timeout=CALLS_S)
        server.stop(None).wait()
    return relay.calls


def main() -> None:
    """Record the calls of a commit into a folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("commit")
    parser.add_argument("out", type=Path, help="folder of the recording; one that is there is replaced")
    options = parser.parse_args()
    out = options.out.resolve()
    with checkout(options.commit) as source:
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        calls = record(source, out)
        for proto in (source / "protos").rglob("*.proto"):
            copy = out / proto.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(proto, copy)
        about = ["git", "log", "-1", "--format=%H %cs"]
        commit, date = subprocess.run(
            about, cwd=source, capture_output=True, text=True, check=True
        ).stdout.split()
    content: dict[str, Any] = {"commit": commit, "date": date, "calls": [text_of(call) for call in calls]}
    (out / "calls.json").write_text(json.dumps(content, indent=1) + "\n")
    print(f"{len(calls)} calls in {out}")


if __name__ == "__main__":
    main()
