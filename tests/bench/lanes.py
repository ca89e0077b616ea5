"""Measure lanes and threads on the CPU, and write results/lanes.json.

    python tests/bench/lanes.py [BENCH_ROOT] [--repeats 3] [--seconds 0.8]

Callers in threads submit rows to a batcher whose lanes run a reference graph; no network takes part. The
variants take turns. The result has the median of the repeats: rows per second, median and 99th percentile of
the time of a call, and processor time a row. BENCH_ROOT holds the reference graphs (default ../shared/bench).
"""

import argparse
import datetime
import json
import os
import statistics
import threading
import time
from contextlib import closing
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from convvae_service.batching.batcher import Batcher
from convvae_service.batching.pending_call import PendingCall
from convvae_service.engine.cpus import available_cpus
from convvae_service.engine.runtime import make_session
from convvae_service.engine.stages import Stage
from convvae_trainer.runs.provenance import hardware

RESULT = Path(__file__).parent / "results" / "lanes.json"
GRAPHS = ("encoder_28x28x1", "decoder_28x28x1", "encoder_64x64x3", "decoder_64x64x3")
# Rows of a call, and callers.
CELLS = ((1, 1), (1, 16), (64, 4), (256, 1))
Figures = dict[str, float]


def main() -> None:
    """Run the measurement and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bench_root", nargs="?", default="../shared/bench", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.8)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    load_before = os.getloadavg()
    cpus = available_cpus()
    # One lane with one thread, one lane with all, and as many lanes as CPUs.
    variants = dict.fromkeys(((1, 1), (1, cpus), (cpus, 1)))
    cells: dict[str, Any] = {}
    for graph in GRAPHS:
        for rows, callers in CELLS:
            runs: dict[tuple[int, int], list[Figures]] = {variant: [] for variant in variants}
            for _ in range(options.repeats):
                for lanes, threads in variants:
                    path = options.bench_root / f"{graph}.onnx"
                    runs[lanes, threads].append(
                        measure(path, lanes, threads, rows=rows, callers=callers, seconds=options.seconds)
                    )
            name = f"{graph} {rows} x{callers}"
            cells[name] = {
                f"{lanes} lanes of {threads}": {
                    key: round(statistics.median(run[key] for run in each), 2) for key in each[0]
                }
                for (lanes, threads), each in runs.items()
            }
            print(name, cells[name], flush=True)
    result = {
        "figure": "rows per second, times of calls and processor time by lanes and threads, on the CPU",
        **cells,
        "repeats": options.repeats,
        "hardware": hardware(),
        "load_average_1_5_15_min": {"before": list(load_before), "after": list(os.getloadavg())},
        "libraries": {name: metadata.version(name) for name in ("convvae", "numpy", "onnxruntime-gpu")},
        "command": "python tests/bench/lanes.py",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")


def measure(path: Path, lanes: int, threads: int, *, rows: int, callers: int, seconds: float) -> Figures:
    """Return the figures of one variant under load."""
    session = make_session(
        path.read_bytes(), name=path.name, provider=("CPUExecutionProvider", {}), threads=threads
    )
    (tensor,) = session.get_inputs()
    dtype = np.uint8 if tensor.type == "tensor(uint8)" else np.float32
    array = np.random.default_rng(0).integers(0, 2, (rows, *tensor.shape[1:])).astype(dtype)
    stage = Stage("run", lambda inputs: tuple(session.run(None, {tensor.name: inputs[0]})))
    times_s: list[float] = []
    with closing(Batcher(lanes=lanes, max_batch_rows=64, max_queued_rows=1 << 20)) as batcher:
        ends_s = time.perf_counter() + seconds

        def call_again_and_again() -> None:
            while (started_s := time.perf_counter()) < ends_s:
                wait_for(batcher.submit(stage, (array,)))
                times_s.append(time.perf_counter() - started_s)

        cpu_s, wall_s = time.process_time(), time.perf_counter()
        all_callers = [threading.Thread(target=call_again_and_again) for _ in range(callers)]
        for caller in all_callers:
            caller.start()
        for caller in all_callers:
            caller.join()
        cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
    num_rows = rows * len(times_s)
    times_s.sort()
    return {
        "rows_per_s": num_rows / wall_s,
        "p50_ms": 1e3 * times_s[len(times_s) // 2],
        "p99_ms": 1e3 * times_s[int(0.99 * len(times_s))],
        "cpu_us_per_row": 1e6 * cpu_s / num_rows,
    }


def wait_for(call: PendingCall) -> None:
    """Return when a call is done."""
    done = threading.Event()
    call.add_done_callback(lambda _: done.set())
    done.wait()


if __name__ == "__main__":
    main()
