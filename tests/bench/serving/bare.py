"""Bare `session.run` on the reference graphs in a process of its own, with the settings of the service.

    python -m bench.serving.bare BENCH_ROOT THREADS

Each line of its input, {"work": ["encoder_28x28x1.onnx"], "rows": 64, "seconds": 0.5}, is answered by
{"cpu_us_per_row": 52.1}. The work `jpeg_28x28x1` decodes JPEG files of that size one by one; work of several
parts does them one after the other, as Reconstruct does.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import simplejpeg

from bench.serving.cell import EMPTY, FILES, Cell
from bench.serving.messages import jpegs_of

__all__ = ["work_of"]

MIN_RUNS = 3
Run = Callable[[], object]


def work_of(cell: Cell) -> list[str]:
    """Return the bare work that a row of the cell needs."""
    encoder, decoder = f"encoder_{cell.graph}.onnx", f"decoder_{cell.graph}.onnx"
    return {
        EMPTY: [],
        FILES: [f"jpeg_{cell.graph}", encoder],
        "Encode": [encoder],
        "Reconstruct": [encoder, decoder],
    }.get(cell.method, [decoder])


def main() -> None:
    """Answer each line of the input."""
    root, threads = Path(sys.argv[1]), int(sys.argv[2])
    sessions: dict[str, Any] = {}
    for line in sys.stdin:
        question = json.loads(line)
        rows = question["rows"]
        runs = []
        for name in question["work"]:
            if name.startswith("jpeg_"):
                runs.append(decoding(name.removeprefix("jpeg_"), rows))
                continue
            if name not in sessions:
                sessions[name] = open_session((root / name).read_bytes(), threads)
            runs.append(running(sessions[name], rows))
        print(json.dumps({"cpu_us_per_row": cpu_us_per_run(runs, question["seconds"]) / rows}), flush=True)


def open_session(graph: bytes, threads: int) -> Any:
    """Return a session with the settings that the service uses."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def running(session: Any, rows: int) -> Run:
    """Return a run of a graph on `rows` rows of noise."""
    (tensor,) = session.get_inputs()
    noise, shape = np.random.default_rng(0), (rows, *tensor.shape[1:])
    is_image = tensor.type == "tensor(uint8)"
    feed = noise.integers(0, 256, shape, np.uint8) if is_image else noise.standard_normal(shape, np.float32)
    outputs = ["mean", "log_variance"] if is_image else ["image"]  # those that the service takes
    return lambda: session.run(outputs, {tensor.name: feed})


def decoding(graph: str, rows: int) -> Run:
    """Return the decoding of `rows` JPEG files of noise."""
    cell = Cell(method=FILES, rows=rows, graph=graph)
    files, colours = jpegs_of(cell), "GRAY" if cell.shape[2] == 1 else "RGB"
    return lambda: [simplejpeg.decode_jpeg(file, colorspace=colours) for file in files]


def cpu_us_per_run(runs: list[Run], seconds: float) -> float:
    """Do all runs again and again for `seconds`, and return what one round took."""
    for run in runs:
        run()
    count, started_s, started_cpu_s = 0, time.perf_counter(), time.process_time()
    while count < MIN_RUNS or time.perf_counter() < started_s + seconds:
        for run in runs:
            run()
        count += 1
    return 1e6 * (time.process_time() - started_cpu_s) / count


if __name__ == "__main__":
    main()
