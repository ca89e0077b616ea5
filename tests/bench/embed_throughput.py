"""Measure convvae-embed against the bare encoder, and write results/embed_throughput.json.

    python tests/bench/embed_throughput.py [DATA_ROOT] [BENCH_ROOT] [--repeats 7]

Both take the 10,000 MNIST test images through the same graph, session settings, batch size and number of
concurrent calls. `bare` calls the session on an array in memory and drops what it returns; `embed` is what
convvae-embed does between start-up and exit: maps the idx file, encodes, writes a Parquet file and syncs it.
Each measurement is a process of its own, after one pass to warm up, and the two take turns. CPU time is of
the whole process (user and system), and steadier than throughput on a shared machine. `whole_command` is
the command from the interpreter's start to its exit, imports and all.

DATA_ROOT holds `MNIST/raw` (default ../shared/data), BENCH_ROOT `encoder_28x28x1.onnx` and
`decoder_28x28x1.onnx` (default ../shared/bench).
"""

import argparse
import datetime
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from convvae_service.bundle import read_bundle
from convvae_service.engine.cpus import available_cpus
from convvae_service.engine.runtime import choose_provider, make_session
from convvae_service.images import open_source
from convvae_service.images.idx import open_idx
from convvae_service.pipeline.local import CPU_BATCH_ROWS, LocalEncoder
from convvae_service.pipeline.run import RunSettings, embed
from convvae_service.pipeline.sink import Provenance
from convvae_service.pipeline.sink_kinds import open_sink
from convvae_trainer.runs.provenance import hardware

sys.path.insert(0, str(Path(__file__).parents[1]))
from bench.start_up import publish_reference

RESULT = Path(__file__).parent / "results" / "embed_throughput.json"
IMAGES = "MNIST/raw/t10k-images-idx3-ubyte"
Figures = dict[str, float]


def main() -> None:
    """Run the measurement and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data_root", nargs="?", default="../shared/data", type=Path)
    parser.add_argument("bench_root", nargs="?", default="../shared/bench", type=Path)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--only", choices=["bare", "embed"], help=argparse.SUPPRESS)
    parser.add_argument("--version-folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    images = options.data_root / IMAGES
    if options.only:
        measure = {"bare": measure_bare, "embed": measure_embed}[options.only]
        print(json.dumps(measure(images, options.version_folder)))
        return
    load_before = os.getloadavg()
    runs: dict[str, list[Figures]] = {"bare": [], "embed": [], "whole_command": []}
    with tempfile.TemporaryDirectory() as folder:
        version = publish_reference(Path(folder, "models"), options.bench_root)
        for _ in range(options.repeats):
            for name in ("bare", "embed"):
                words = [str(options.data_root), "--only", name, "--version-folder", str(version)]
                output = subprocess.check_output([sys.executable, __file__, *words])
                runs[name].append(json.loads(output))
            runs["whole_command"].append(measure_command(images, version, Path(folder, "z.parquet")))
    result = summarize(runs, repeats=options.repeats)
    result["load_average_1_5_15_min"] = {"before": list(load_before), "after": list(os.getloadavg())}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(
        json.dumps(
            {key: result[key] for key in ("cpu_ratio", "wall_ratio", "bare", "embed", "whole_command")}
        )
    )


def measure_bare(images: Path, version: Path) -> Figures:
    """Call the encoder's session on an array in memory."""
    data = read_bundle(version).graphs["encoder", "fp32"]
    session = make_session(data, name="encoder.onnx", provider=choose_provider("cpu"), threads=1)
    array = np.array(open_idx(images))[..., None]
    starts = range(0, len(array), CPU_BATCH_ROWS)
    with ThreadPoolExecutor(available_cpus()) as pool:

        def encode(start: int) -> None:
            session.run(["mean", "log_variance"], {"image": array[start : start + CPU_BATCH_ROWS]})

        return timed(lambda: list(pool.map(encode, starts)), len(array))


def measure_embed(images: Path, version: Path) -> Figures:
    """Do what the command does once its encoder is loaded."""
    encoder = LocalEncoder(version, device="cpu")
    settings = RunSettings(batch_rows=encoder.batch_rows, threads=encoder.lanes + available_cpus())
    with tempfile.TemporaryDirectory() as folder:

        def run() -> None:
            source = open_source(images)
            source.check(encoder.info.input)
            provenance = Provenance(encoder=encoder.info, source=source.name, log_variance=False)
            sink = open_sink(Path(folder, "z.parquet"), provenance, overwrite=True)
            embed(source, encoder, sink, settings)

        return timed(run, len(open_source(images)))


def measure_command(images: Path, version: Path, sink: Path) -> Figures:
    """Run the whole command."""
    words = ["run", images, sink, "--bundle", version, "--device", "cpu", "--overwrite"]
    before, started_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "convvae_service.pipeline", *map(str, words)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    wall_s, after = time.perf_counter() - started_s, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_s": wall_s, "cpu_s": cpu_s, "rows": len(open_source(images))}


def timed(work: Callable[[], Any], rows: int) -> Figures:
    """Do the work twice, and time the second."""
    work()
    started_s, started_cpu_s = time.perf_counter(), time.process_time()
    work()
    return {
        "wall_s": time.perf_counter() - started_s,
        "cpu_s": time.process_time() - started_cpu_s,
        "rows": rows,
    }


def summarize(runs: dict[str, list[Figures]], *, repeats: int) -> dict[str, Any]:
    """Return medians and their ratios."""
    medians = {
        name: {
            "rows_per_s": round(statistics.median(run["rows"] / run["wall_s"] for run in each)),
            "cpu_us_per_row": round(statistics.median(1e6 * run["cpu_s"] / run["rows"] for run in each), 1),
            "wall_s": round(statistics.median(run["wall_s"] for run in each), 3),
            "cpu_s": round(statistics.median(run["cpu_s"] for run in each), 3),
        }
        for name, each in runs.items()
    }
    return {
        "figure": "convvae-embed against the bare encoder session, 10,000 images of 28x28x1; medians",
        "cpu_ratio": round(medians["embed"]["cpu_us_per_row"] / medians["bare"]["cpu_us_per_row"], 3),
        "wall_ratio": round(medians["embed"]["wall_s"] / medians["bare"]["wall_s"], 3),
        **medians,
        "repeats": repeats,
        "batch_rows": CPU_BATCH_ROWS,
        "lanes": available_cpus(),
        "hardware": hardware(),
        "libraries": {
            name: metadata.version(name)
            for name in ("convvae", "numpy", "onnxruntime-gpu", "pyarrow", "rich", "typer")
        },
        "command": "python tests/bench/embed_throughput.py",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


if __name__ == "__main__":
    main()
