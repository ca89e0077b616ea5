"""Where the processor time of a call goes, by part of the service.

Each thread's time is divided by what py-spy saw it do, a sampling profiler in a process of its own (see
`make tools`). A sample belongs to the innermost of its frames that is in one of the folders of `PARTS`.
Threads that never run Python, such as those of a front, are a part of their own.
"""

import re
import subprocess
import tempfile
import threading
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from bench.serving.cell import Cell
from bench.serving.checkout import ROOT
from bench.serving.processes import cpu_s_by_thread
from bench.serving.server import RunningServer

__all__ = ["PARTS", "divide", "has_profiler", "measure_parts", "part_of"]

PROFILER = ROOT / ".tools" / "py-spy-venv" / "bin" / "py-spy"
SAMPLES_PER_S = 250
# Folders, modules and functions of convvae_service; the first that a frame begins with decides.
PARTS = {
    "parse": (
        "calls/request_reader", "calls/wire_format", "api/parse", "api/image_rows", "api/limits",
        "images/", "open_inference/",
    ),
    "queue": ("batching/",),
    "engine": ("engine/",),
    "reply": ("api/serialize", "calls/service:_answer"),
    "log, metrics, traces": ("observability/",),
    "path of the call": ("calls/", "api/", "repository/"),
    "front, in Python": ("server/",),
}  # fmt: skip
ELSEWHERE = "front, in Python"
OUTSIDE = "threads outside Python"
_THREAD = re.compile(r"thread \((\d+)\)")
_FRAME = re.compile(r"([^.; ]+) \((?:[^;()]*/)?convvae_service/([\w/]+)\.py:")


def has_profiler() -> bool:
    """Return whether py-spy is installed."""
    return PROFILER.exists()


def part_of(stack: str) -> str:
    """Return the part of a stack, whose frames py-spy separates by semicolons, the innermost last."""
    for function, module in reversed(_FRAME.findall(stack)):
        for part, prefixes in PARTS.items():
            if f"{module}:{function}".startswith(prefixes):
                return part
    return ELSEWHERE


def divide(lines: list[str], cpu_s: dict[int, float]) -> dict[str, float]:
    """Return seconds by part from py-spy's lines, each a stack and a count, and each thread's seconds."""
    seen: dict[int, Counter[str]] = defaultdict(Counter)
    for line in lines:
        stack, _, count = line.rpartition(" ")
        if named := _THREAD.match(stack):
            seen[int(named[1])][part_of(stack)] += int(count)
    found: dict[str, float] = dict.fromkeys((*PARTS, OUTSIDE), 0.0)
    for number, seconds in cpu_s.items():
        counts = seen.get(number, Counter({OUTSIDE: 1}))
        for part, samples in counts.items():
            found[part] += seconds * samples / counts.total()
    return found


def measure_parts(server: RunningServer, cell: Cell, *, seconds: float) -> dict[str, float]:
    """Return the microseconds of a row by part, while the callers of a cell call.

    The profiler does not stop the server, so some samples are of two moments.
    """
    with tempfile.TemporaryDirectory(prefix="convvae-bench-") as folder, server.callers(cell) as callers:
        samples = Path(folder, "samples.txt")
        words = [
            str(PROFILER), "record", "--pid", str(server.pid), "--nonblocking", "--threads",
            "--format", "raw", "--rate", str(SAMPLES_PER_S), "--duration", str(round(seconds)),
            "--output", str(samples),
        ]  # fmt: skip
        report: dict[str, Any] = {}
        calling = threading.Thread(target=lambda: report.update(callers.ask({"seconds": seconds + 1})))
        before = cpu_s_by_thread(server.pid)
        calling.start()
        subprocess.run(words, check=True, capture_output=True, timeout=seconds + 60)
        calling.join()
        after = cpu_s_by_thread(server.pid)
        spent = {thread: after[thread] - before.get(thread, 0.0) for thread in after}
        rows = len(report["latencies_ms"]) * cell.rows
        parts = divide(samples.read_text().splitlines(), spent)
        return {part: round(1e6 * each / rows, 1) for part, each in parts.items()}
