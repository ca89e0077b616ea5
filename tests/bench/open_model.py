"""Measure a model in this process against its bare encoder, and write results/open_model.json.

    python tests/bench/open_model.py [BENCH_ROOT] [--pairs 151]

Both take 256 images through the same session of ONNX Runtime: two sessions of one graph differ by 2 % in
their processor time. `bare` is `session.run` for both outputs; `open_model` is `LocalModel.encode` with
log-variances. They take turns in one process, and the processor time of each turn is that of all threads
(user and system), which is steadier than the clock on a shared machine. A ratio is the median over the pairs
of turns.

BENCH_ROOT holds the reference graphs, `encoder_28x28x1.onnx` and others (default ../shared/bench).
"""

import argparse
import datetime
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from convvae_service import open_model
from convvae_service.engine.cpus import available_cpus
from convvae_trainer.runs.provenance import code_commit, hardware

sys.path.insert(0, str(Path(__file__).parents[1]))
from bench.start_up import publish_reference

__all__ = ["measure"]

RESULT = Path(__file__).parent / "results" / "open_model.json"
ROWS = 256
TARGET = 1.02
# Runs of one turn: about 50 ms of processor time. Many short pairs see the same load of the machine.
RUNS = {"28x28x1": 5, "64x64x3": 1}


def main() -> None:
    """Run the measurement and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bench_root", nargs="?", default="../shared/bench", type=Path)
    parser.add_argument("--pairs", type=int, default=151)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    load_before = os.getloadavg()
    graphs = {
        name: measure(options.bench_root, name, pairs=options.pairs, runs=runs) for name, runs in RUNS.items()
    }
    result = {
        "figure": f"processor time of open_model(...).encode against bare session.run, {ROWS} rows; medians",
        "target": TARGET,
        "met": all(graph["cpu_ratio"] <= TARGET for graph in graphs.values()),
        **graphs,
        "rows": ROWS,
        "pairs": options.pairs,
        "threads": available_cpus(),
        "hardware": hardware(),
        "libraries": {name: metadata.version(name) for name in ("convvae", "numpy", "onnxruntime-gpu")},
        "load_average_1_5_15_min": {"before": list(load_before), "after": list(os.getloadavg())},
        "commit": code_commit(),
        "command": "python tests/bench/open_model.py",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({name: graph["cpu_ratio"] for name, graph in graphs.items()}))


def measure(bench_root: Path, name: str, *, pairs: int, runs: int) -> dict[str, Any]:
    """Return the ratios of one reference graph."""
    with tempfile.TemporaryDirectory() as folder:
        version = publish_reference(Path(folder), bench_root, name)
        with open_model(version, device="cpu") as model:
            shape = (ROWS, *model.model().image_shape)
            images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
            session: Any = model._version.engine._encoder
            session = session._session
            outputs = ["mean", "log_variance"]
            works: dict[str, Callable[[], Any]] = {
                "bare": lambda: session.run(outputs, {"image": images}),
                "open_model": lambda: model.encode(images, include_log_variance=True),
            }
            for work in works.values():
                work()
            turns: dict[str, list[tuple[float, float]]] = {each: [] for each in works}
            for turn in range(pairs):
                # Each is the first of a pair as often as the other.
                for each in sorted(works, reverse=bool(turn % 2)):
                    turns[each].append(timed(works[each], runs))
    return summary(turns, runs=runs)


def timed(work: Callable[[], Any], runs: int) -> tuple[float, float]:
    """Return the seconds of processor and of the clock that some runs take."""
    started_s, started_cpu_s = time.perf_counter(), time.process_time()
    for _ in range(runs):
        work()
    return time.process_time() - started_cpu_s, time.perf_counter() - started_s


def summary(turns: dict[str, list[tuple[float, float]]], *, runs: int) -> dict[str, Any]:
    """Return the medians of turns and of the ratios of their pairs."""
    pairs = list(zip(turns["open_model"], turns["bare"], strict=True))
    cpu, wall = ([ours[kind] / bare[kind] for ours, bare in pairs] for kind in (0, 1))
    return {
        "cpu_ratio": round(statistics.median(cpu), 4),
        "cpu_ratio_quartiles": [round(ratio, 4) for ratio in statistics.quantiles(cpu, n=4)],
        "wall_ratio": round(statistics.median(wall), 4),
        "runs_per_turn": runs,
        **{
            f"{each}_cpu_ms": round(1e3 * statistics.median(cpu_s for cpu_s, _ in taken) / runs, 3)
            for each, taken in turns.items()
        },
    }


if __name__ == "__main__":
    main()
