"""Measure what settings of ONNX Runtime cost, and write results/runtime_settings.json.

    python tests/bench/runtime_settings.py [BENCH_ROOT] [--repeats 3]

Arenas, thread pools and bound runs, each variant in processes of its own, in turn with the others. BENCH_ROOT
holds the reference graphs (default ../shared/bench). Each figure is the least of the repeats, which other
work on the machine disturbs least.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from convvae_service.engine.arena import Arenas
from convvae_service.engine.runtime import make_session
from convvae_trainer.runs.provenance import hardware

RESULT = Path(__file__).parent / "results" / "runtime_settings.json"
CPU: tuple[str, dict[str, Any]] = ("CPUExecutionProvider", {})
MODELS = 8
LARGEST_ROWS = 64
Figures = dict[str, float]


def main() -> None:
    """Run the measurements and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bench_root", nargs="?", default="../shared/bench", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--only", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        kind, *words = options.only
        measure = {"arena": measure_arena, "pool": measure_pool, "binding": measure_binding}[kind]
        print(json.dumps(measure(options.bench_root, *words)))
        return
    load_before = os.getloadavg()
    variants = [
        *(("arena", graph, arena) for graph in ("28x28x1", "64x64x3") for arena in ("keep", "off")),
        *(("pool", pool, str(threads)) for threads in (1, 2, 4) for pool in ("own", "shared")),
        *(("binding", graph, str(rows)) for graph in ("encoder", "decoder") for rows in (1, LARGEST_ROWS)),
    ]
    runs: dict[str, list[Figures]] = {" ".join(words): [] for words in variants}
    for _ in range(options.repeats):
        for words in variants:
            command = [sys.executable, __file__, str(options.bench_root), "--only", *words]
            output = subprocess.check_output(command, stderr=subprocess.DEVNULL)
            runs[" ".join(words)].append(json.loads(output))
    result = {
        "figure": "resident memory, threads and processor time by setting of ONNX Runtime, on the CPU",
        **{name: {key: min(run[key] for run in each) for key in each[0]} for name, each in runs.items()},
        "repeats": options.repeats,
        "models": MODELS,
        "hardware": hardware(),
        "load_average_1_5_15_min": {"before": list(load_before), "after": list(os.getloadavg())},
        "libraries": {name: metadata.version(name) for name in ("convvae", "numpy", "onnxruntime-gpu")},
        "command": "python tests/bench/runtime_settings.py",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    for name in runs:
        print(f"{name}: {result[name]}")


def measure_arena(bench_root: Path, graph: str, arena: Any) -> Figures:
    """Return what a decoder holds after its largest batch, and what its runs cost."""
    arenas = Arenas(use=arena)
    data = (bench_root / f"decoder_{graph}.onnx").read_bytes()
    before_mib = resident_mib()
    session = make_session(data, name="decoder.onnx", provider=CPU, threads=1, arenas=arenas)

    def run(rows: int) -> Callable[[], Any]:
        feed = feed_of(session, rows)
        return lambda: session.run(["image"], feed)

    for rows in (1, LARGEST_ROWS, LARGEST_ROWS // 2, 3, 1):
        run(rows)()
    return {
        "resident_mib": round(resident_mib() - before_mib, 1),
        **{f"cpu_us_per_row_{rows}": round(cpu_us(run(rows)) / rows, 1) for rows in (1, 16)},
    }


def measure_pool(bench_root: Path, pool: str, threads: str) -> Figures:
    """Return the threads of a process with several models, and what its runs cost then and afterwards."""
    before, before_mib = num_threads(), resident_mib()
    if pool == "shared":
        onnxruntime.set_global_thread_pool_sizes(int(threads), 1)
    sessions = []
    for role in ("encoder", "decoder") * MODELS:
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.force_spinning_stop", "1" if pool == "shared" else "0")
        options.use_per_session_threads = pool == "own"
        options.intra_op_num_threads = int(threads)
        data = (bench_root / f"{role}_28x28x1.onnx").read_bytes()
        sessions.append(onnxruntime.InferenceSession(data, options, providers=[CPU[0]]))
    feeds = [feed_of(session, 16) for session in sessions]

    def run() -> None:
        for session, feed in zip(sessions, feeds, strict=True):
            session.run(None, feed)

    run()
    idle_ms = []
    for _ in range(5):
        sessions[-1].run(None, feeds[-1])
        started_s = time.process_time()
        time.sleep(0.2)
        idle_ms.append(1e3 * (time.process_time() - started_s))
    return {
        "threads": num_threads() - before,
        "resident_mib": round(resident_mib() - before_mib, 1),
        "cpu_ms_idle_after_a_run": round(min(idle_ms), 2),
        "cpu_us_per_row": round(cpu_us(run) / 16 / MODELS, 1),
    }


def measure_binding(bench_root: Path, role: str, rows: str) -> Figures:
    """Return what a plain run costs, and one with its input and outputs bound."""
    data = (bench_root / f"{role}_28x28x1.onnx").read_bytes()
    session = make_session(data, name=role, provider=CPU, threads=1)
    ((name, array),) = feed_of(session, int(rows)).items()
    outputs = [(tensor.name, tensor.type, tensor.shape[1:]) for tensor in session.get_outputs()]

    def bound() -> list[Any]:
        results = []
        binding = session.io_binding()
        binding.bind_cpu_input(name, array)
        for output, kind, shape in outputs:
            result = np.empty((len(array), *shape), np.uint8 if kind == "tensor(uint8)" else np.float32)
            binding.bind_output(output, "cpu", 0, result.dtype.type, result.shape, result.ctypes.data)
            results.append(result)
        session.run_with_iobinding(binding)
        return results

    return {
        "plain_cpu_us_per_run": round(cpu_us(lambda: session.run(None, {name: array})), 1),
        "bound_cpu_us_per_run": round(cpu_us(bound), 1),
    }


def feed_of(session: Any, rows: int) -> dict[str, Any]:
    """Return an input of `rows` rows."""
    (tensor,) = session.get_inputs()
    dtype = np.uint8 if tensor.type == "tensor(uint8)" else np.float32
    return {tensor.name: np.zeros((rows, *tensor.shape[1:]), dtype)}


def cpu_us(work: Callable[[], Any], *, rounds: int = 7, seconds: float = 0.15) -> float:
    """Return the microseconds of processor time that `work` takes: the least mean of some rounds."""
    started_s = time.perf_counter()
    work()
    count = max(1, round(seconds / (time.perf_counter() - started_s)))
    times = []
    for _ in range(rounds):
        started_s = time.process_time()
        for _ in range(count):
            work()
        times.append(1e6 * (time.process_time() - started_s) / count)
    return round(min(times), 1)


def num_threads() -> int:
    """Return the threads of this process."""
    return len(os.listdir("/proc/self/task"))  # noqa: PTH208


def resident_mib() -> float:
    """Return the memory that this process has."""
    text = Path("/proc/self/status").read_text()
    (line,) = (line for line in text.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
