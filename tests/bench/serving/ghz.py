"""Callers by ghz, a load generator in Go that shares no code with this project: see `make tools`."""

import json
import resource
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.serving.cell import Cell
from bench.serving.messages import path_of

__all__ = ["GhzCallers", "has_ghz"]

ROOT = Path(__file__).parents[3]
GHZ = ROOT / ".tools" / "bin" / "ghz"


def has_ghz() -> bool:
    """Return whether ghz is installed."""
    return GHZ.exists()


class GhzCallers:
    """Callers that share one connection. Each window is a run of ghz, which connects before it calls."""

    def __init__(self, target: str, cell: Cell, body: bytes) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="convvae-bench-")
        message = Path(self._folder.name, "message.bin")
        message.write_bytes(body)
        self._words = [
            str(GHZ), "--insecure", "--format", "json", "--duration-stop", "wait",
            "--import-paths", str(ROOT / "protos"), "--proto", "convvae/v1/vae.proto",
            "--call", path_of(cell).removeprefix("/").replace("/", "."),
            "--binary-file", str(message), "--concurrency", str(cell.callers), target,
        ]  # fmt: skip

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Call for some seconds, and return the report of a `Tally`."""
        before = _children_cpu_s()
        words = [*self._words, "--duration", f"{question['seconds']}s"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=question["seconds"] + 60)
        if done.returncode:
            raise RuntimeError(f"ghz failed: {done.stderr or done.stdout}"[:2000])
        found = json.loads(done.stdout)
        failed = [call for call in found["details"] if call["status"] != "OK"]
        return {
            "latencies_ms": [call["latency"] / 1e6 for call in found["details"]],
            "elapsed_s": found["total"] / 1e9,
            "caller_cpu_s": _children_cpu_s() - before,
            "failed": len(failed),
            "errors": [f"{call['status']}: {call['error']}" for call in failed[:3]],
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.cleanup()


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
