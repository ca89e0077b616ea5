"""Measure convvae-embed on an array against the bare encoder, and write results/embed_throughput.json.

    python tests/bench/embed_throughput.py [DATA_ROOT] [BENCH_ROOT] [--repeats 3] [--times 10]

All take the 70,000 MNIST images, so many times over in one idx file, through the same graph, session
settings, rows a call and number of concurrent calls. `bare` calls the session on an array in memory and drops
the results; `embed` is what convvae-embed does between start-up and exit: reads the idx file, encodes, writes
Parquet parts and a journal, and syncs them; `service` is the same through a server on this machine. Each
measurement is a process of its own, after a short pass to warm up, and they take turns. CPU time is of the
whole process (user and system), for `service` without the server's, and steadier than throughput on a shared
machine. `whole_command` is the command from the interpreter's start to its exit, on 10,000 images.

It takes about three minutes on two idle CPUs, and 1.5 GB of memory.

DATA_ROOT holds `MNIST/raw` (default ../shared/data), BENCH_ROOT `encoder_28x28x1.onnx` and
`decoder_28x28x1.onnx` (default ../shared/bench).
"""

import argparse
import datetime
import json
import os
import resource
import statistics
import struct
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
from convvae_service.images import SourceOptions, open_source
from convvae_service.images.idx import open_idx
from convvae_service.pipeline.encoder import ImageEncoder
from convvae_service.pipeline.local import CPU_CALL_ROWS, LocalEncoder
from convvae_service.pipeline.parquet_sink import import_pyarrow
from convvae_service.pipeline.remote import RemoteEncoder
from convvae_service.pipeline.run import RunSettings
from convvae_service.pipeline.run_engine import LocalEngine
from convvae_service.pipeline.sink import Columns, Provenance
from convvae_service.pipeline.sink_kinds import job_of, open_output
from convvae_trainer.runs.provenance import hardware

sys.path.insert(0, str(Path(__file__).parents[1]))
from bench.start_up import publish_reference
from support.serving import serving

RESULT = Path(__file__).parent / "results" / "embed_throughput.json"
SHARDS = ("MNIST/raw/train-images-idx3-ubyte", "MNIST/raw/t10k-images-idx3-ubyte")
PART_ROWS = 1 << 16
Figures = dict[str, float]


def main() -> None:
    """Run the measurement and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data_root", nargs="?", default="../shared/data", type=Path)
    parser.add_argument("bench_root", nargs="?", default="../shared/bench", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--times", type=int, default=10, help="how often the 70,000 images are repeated")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--only", choices=["bare", "embed"], help=argparse.SUPPRESS)
    parser.add_argument("--encoder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        measure = {"bare": measure_bare, "embed": measure_embed}[options.only]
        print(json.dumps(measure(options.data_root, options.encoder)))
        return
    load_before = os.getloadavg()
    runs: dict[str, list[Figures]] = {"bare": [], "embed": [], "service": [], "whole_command": []}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        version = publish_reference(folder / "models", options.bench_root)
        images = repeated(options.data_root, folder / "images.idx", options.times)
        for _ in range(options.repeats):
            runs["bare"].append(child("bare", images, version))
            runs["embed"].append(child("embed", images, version))
            with serving(folder / "models") as server:
                runs["service"].append(child("embed", images, server.target))
            command = measure_command(options.data_root / SHARDS[1], version, folder / "z.parquet")
            runs["whole_command"].append(command)
    result = summarize(runs, repeats=options.repeats, times=options.times)
    result["load_average_1_5_15_min"] = {"before": list(load_before), "after": list(os.getloadavg())}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({key: value for key, value in result.items() if key.endswith("ratio")}))


def repeated(data_root: Path, path: Path, times: int) -> Path:
    """Write an idx file of all MNIST images, so many times over."""
    images = np.concatenate([np.asarray(open_idx(data_root / shard)) for shard in SHARDS])
    with path.open("wb") as file:
        file.write(struct.pack(">4B3I", 0, 0, 8, 3, times * len(images), *images.shape[1:]))
        for _ in range(times):
            file.write(images.tobytes())
    return path


def child(name: str, images: Path, encoder: object) -> Figures:
    """Return the figures of a process of its own."""
    command = [sys.executable, __file__, str(images), "--only", name, "--encoder", str(encoder)]
    return dict(json.loads(subprocess.check_output(command)))


def measure_bare(images: Path, version: str) -> Figures:
    """Call the encoder's session on an array in memory."""
    data = read_bundle(Path(version)).graphs["encoder", "fp32"]
    session = make_session(data, name="encoder.onnx", provider=choose_provider("cpu"), threads=1)
    array = np.array(open_idx(images))[..., None]
    starts = range(0, len(array), CPU_CALL_ROWS)
    with ThreadPoolExecutor(available_cpus()) as pool:

        def encode(start: int) -> None:
            session.run(["mean", "log_variance"], {"image": array[start : start + CPU_CALL_ROWS]})

        list(pool.map(encode, starts[:50]))
        return timed(lambda: list(pool.map(encode, starts)), len(array))


def measure_embed(images: Path, where: str) -> Figures:
    """Do what the command does once its encoder is loaded: a bundle's folder, or a service's address."""
    is_service = ":" in where
    encoder: ImageEncoder = RemoteEncoder(where) if is_service else LocalEncoder(Path(where), device="cpu")
    import_pyarrow()
    for _ in range(50):
        encoder.encode(np.zeros((CPU_CALL_ROWS, 28, 28, 1), np.uint8), log_variance=False)
    engine = LocalEngine(encoder, threads=None)
    settings = RunSettings(batch_rows=engine.batch_rows)
    with tempfile.TemporaryDirectory() as folder:

        def run() -> None:
            source = open_source(images)
            provenance = Provenance(encoder=encoder.info, source=source.name, columns=Columns())
            job = job_of(source, provenance, SourceOptions(), part_rows=PART_ROWS)
            output = open_output(
                Path(folder, "z"), provenance, job, part_rows=PART_ROWS, overwrite=False, resume=False
            )
            engine.embed(source, output, settings)

        found = timed(run, open_source(images).rows or 0)
    engine.close()
    return found


def measure_command(images: Path, version: Path, sink: Path) -> Figures:
    """Run the whole command."""
    words = ["run", images, sink, "--bundle", version, "--device", "cpu", "--force"]
    before, started_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "convvae_service.pipeline", *map(str, words)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    wall_s, after = time.perf_counter() - started_s, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_s": wall_s, "cpu_s": cpu_s, "rows": open_source(images).rows or 0}


def timed(work: Callable[[], Any], rows: int) -> Figures:
    """Time some work."""
    started_s, started_cpu_s = time.perf_counter(), time.process_time()
    work()
    return {
        "wall_s": time.perf_counter() - started_s,
        "cpu_s": time.process_time() - started_cpu_s,
        "rows": rows,
    }


def summarize(runs: dict[str, list[Figures]], *, repeats: int, times: int) -> dict[str, Any]:
    """Return medians, and the medians of ratios within each round."""
    medians = {
        name: {
            "rows": each[0]["rows"],
            "rows_per_s": round(statistics.median(run["rows"] / run["wall_s"] for run in each)),
            "cpu_us_per_row": round(statistics.median(1e6 * run["cpu_s"] / run["rows"] for run in each), 1),
            "wall_s": round(statistics.median(run["wall_s"] for run in each), 3),
            "cpu_s": round(statistics.median(run["cpu_s"] for run in each), 3),
        }
        for name, each in runs.items()
    }

    def ratio(name: str, figure: str) -> float:
        pairs = zip(runs[name], runs["bare"], strict=True)
        return round(statistics.median(one[figure] / bare[figure] for one, bare in pairs), 3)

    return {
        "figure": "convvae-embed against the bare encoder session on images of 28x28x1; medians",
        "cpu_ratio": ratio("embed", "cpu_s"),
        "wall_ratio": ratio("embed", "wall_s"),
        "service_wall_ratio": ratio("service", "wall_s"),
        **medians,
        "repeats": repeats,
        "call_rows": CPU_CALL_ROWS,
        "lanes": available_cpus(),
        "hardware": hardware(),
        "libraries": {
            name: metadata.version(name)
            for name in ("convvae", "numpy", "onnxruntime-gpu", "pyarrow", "rich", "typer")
        },
        "command": f"python tests/bench/embed_throughput.py --repeats {repeats} --times {times}",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


if __name__ == "__main__":
    main()
