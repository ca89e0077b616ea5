"""Odd names, manifests and graphs in a repository that is followed: results/FRONT/odd_repository.json.

    python tests/attack/odd_repository.py [--front grpcio|native]

Each costs at most a few lines of the log, and a sound version that comes after it is loaded.
"""

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc

sys.path.insert(0, str(Path(__file__).parents[1]))
from attack.calls import OPTIONS
from attack.target import Target, attacked
from convvae.v1 import vae_pb2, vae_pb2_grpc
from support.figure import measure_to_files
from support.tiny_bundle import publish_tiny

INTERVAL_S = 0.3
SEEN_S = 1.5
MOST_LINES = 3
MOST_LOAD_S = 10.0

NAMES = (b"caf\xe9", b"line\n\x1b[31m", b"liveness", b"n" * 255, b"tiny.encoder", b"..x", b"\xf0\x9f\x90\x88")


def _manifest(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def spoil(version: Path) -> None:
        manifest = json.loads((version / "manifest.json").read_text())
        change(manifest)
        (version / "manifest.json").write_text(json.dumps(manifest))

    return spoil


def _text(text: str) -> Callable[[Path], None]:
    def spoil(version: Path) -> None:
        (version / "manifest.json").write_text(text)

    return spoil


def _cut(version: Path) -> None:
    graph = version / "encoder.onnx"
    graph.write_bytes(graph.read_bytes()[:100])


def _linked(version: Path) -> None:
    (version / "encoder.onnx").unlink()
    (version / "encoder.onnx").symlink_to("/etc/passwd")


def _pipe(version: Path) -> None:
    (version / "encoder.onnx").unlink()
    os.mkfifo(version / "encoder.onnx")


def _manifest_pipe(version: Path) -> None:
    (version / "manifest.json").unlink()
    os.mkfifo(version / "manifest.json")


VERSIONS: dict[str, Callable[[Path], None]] = {
    "a number of 400 digits": _manifest(lambda manifest: manifest["training"].update(epochs=10**400)),
    "deep lists": _text("[" * 500_000),
    "a long number": _text('{"schema_version": 1' + "0" * 5000 + "}"),
    "half a character": _text('{"schema_version": "\\ud800"}'),
    "a manifest that is a pipe": _manifest_pipe,
    "a graph that is cut": _cut,
    "a graph that is a link out of the folder": _linked,
    "a graph that is a pipe": _pipe,
}


def measure(front: str, names: int = len(NAMES), versions: int = len(VERSIONS)) -> dict[str, Any]:
    """Return the figures of so many names, and of so many spoilt versions."""
    lines: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        root, aside = Path(folder) / "models", Path(folder) / "aside"
        publish_tiny(root)
        flags = ("--watch", "--watch-interval-s", str(INTERVAL_S))
        with attacked(front, root, *flags, model="tiny") as target:
            listed = True
            for odd_name in NAMES[:names]:
                before = len(target.server.lines)
                odd = root / os.fsdecode(odd_name) / "1"
                odd.mkdir(parents=True)
                (odd / "manifest.json").write_text("{}")
                time.sleep(SEEN_S)
                listed = listed and _is_listed(target)
                lines[repr(odd_name)] = len(target.server.lines) - before
            number = 2
            for name, spoil in list(VERSIONS.items())[:versions]:
                before = len(target.server.lines)
                staged = publish_tiny(aside, seed=number)
                spoil(staged)
                staged.rename(root / "tiny" / str(number))
                shutil.rmtree(aside)
                time.sleep(SEEN_S)
                listed = listed and _is_listed(target)
                lines[name] = len(target.server.lines) - before
                number += 1
            publish_tiny(aside, seed=number).rename(root / "tiny" / str(number))
            loaded_s = _seconds_until_served(target, number)
            result = target.finish()
            errors = [line for line in target.server.lines if "exception" in line]
    result["met"] = {
        "each costs at most three lines": max(lines.values()) <= MOST_LINES,
        "models are listed, and the metrics are there": listed,
        "a sound version after them is served within 10 s": loaded_s is not None,
        "no traceback is in the log": not errors,
        **{name: met for name, met in result["met"].items() if not name.startswith(("no attack", "the "))},
    }
    return {
        "figure": "odd names, manifests and graphs in a repository that is followed",
        **result,
        "lines": lines,
        "seconds_until_the_sound_version_is_served": loaded_s,
        "tracebacks": errors[:2],
    }


def _is_listed(target: Target) -> bool:
    with grpc.insecure_channel(target.address, OPTIONS) as channel:
        try:
            vae_pb2_grpc.VaeServiceStub(channel).ListModels(vae_pb2.ListModelsRequest(), timeout=5)
            return "convvae_model_info" in target.server.metrics_page()
        except (grpc.RpcError, OSError):
            return False


def _seconds_until_served(target: Target, version: int) -> float | None:
    request = vae_pb2.SampleRequest(model=vae_pb2.ModelRef(name="tiny"), count=1)
    began_s = time.monotonic()
    with grpc.insecure_channel(target.address, OPTIONS) as channel:
        sample = vae_pb2_grpc.VaeServiceStub(channel).Sample
        while time.monotonic() < began_s + MOST_LOAD_S:
            if sample(request, timeout=5).model.version == version:
                return round(time.monotonic() - began_s, 2)
            time.sleep(0.1)
    return None


if __name__ == "__main__":
    measure_to_files(__file__, __doc__, measure)
