"""Measure convvae-embed from tar archives of JPEG files to Parquet parts: results/embed_archive.json.

    python tests/bench/embed_archive.py [DATA_ROOT] [BENCH_ROOT] [--repeats 3] [--graph 28x28x1] [--limit N]

`embed` is a whole run from `cifar10-train.tar` in DATA_ROOT, 50,000 small files, with a bundle in its own
process, once it is loaded. Beside it, in turns and each in a process of its own: `decode` brings the same
files, in memory, to the model's pixels in one thread; `encode` runs the bare session on these pixels, in the
same batches; `loop` is two processes that each decode and encode half of the files and write nothing. So
`cpu_ratio` is embed / (decode + encode), and `wall_ratio` is embed / loop. Two threads of one core take more
CPU time for the same work than one alone: `cpu_ratio_busy` is embed / loop, where both are busy.
`memory_mib` has the peak of the process with one copy of the archive, and with four.
"""

import argparse
import datetime
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convvae_service.bundle import read_bundle
from convvae_service.engine.cpus import available_cpus
from convvae_service.engine.runtime import choose_provider, make_session
from convvae_service.images import SourceOptions, decode_file, open_sources
from convvae_service.pipeline.local import CPU_BATCH_ROWS, LocalEncoder
from convvae_service.pipeline.parquet_sink import import_pyarrow
from convvae_service.pipeline.run import RunSettings, embed
from convvae_service.pipeline.sink import Columns, Provenance
from convvae_service.pipeline.sink_kinds import job_of, open_output
from convvae_trainer.runs.provenance import hardware

sys.path.insert(0, str(Path(__file__).parents[1]))
from bench.start_up import publish_reference

RESULT = Path(__file__).parent / "results" / "embed_archive.json"
ARCHIVE = "cifar10-train.tar"
PART_ROWS = 1 << 16
RATIOS = ("cpu_ratio", "cpu_ratio_busy", "wall_ratio", "memory_mib")
Figures = dict[str, float]


def main() -> None:
    """Run the measurement and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data_root", nargs="?", default="../shared/data", type=Path)
    parser.add_argument("bench_root", nargs="?", default="../shared/bench", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--graph", default="28x28x1", help="the reference graphs, by the size of their images"
    )
    parser.add_argument("--limit", type=int, help="only so many files, for a short trial")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--only", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(MEASURES[options.only[0]](*options.only[1:])))
        return
    load_before = os.getloadavg()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        version = publish_reference(folder / "models", options.bench_root, options.graph)
        archive = prepare(options.data_root / ARCHIVE, folder, options.limit)
        runs: dict[str, list[Figures]] = {
            each: [] for each in ("decode", "encode", "loop", "embed", "embed_4")
        }
        for _ in range(options.repeats):
            for each, found in runs.items():
                found.append(child(each, version, archive))
    result = {**summarize(runs), "graph": options.graph, "repeats": options.repeats, "hardware": hardware()}
    result["batch_rows"] = CPU_BATCH_ROWS
    result["load_average_1_5_15_min"] = {"before": list(load_before), "after": list(os.getloadavg())}
    names = ("convvae", "numpy", "onnxruntime-gpu", "pyarrow", "simplejpeg")
    result["libraries"] = {each: metadata.version(each) for each in names}
    result["command"] = f"python tests/bench/embed_archive.py --graph {options.graph}"
    result["date"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({key: result[key] for key in RATIOS}))


def prepare(archive: Path, folder: Path, limit: int | None) -> Path:
    """Return four copies of the archive, or of its first files, with names that end in 0 to 3: the first."""
    first = folder / "archive-0.tar"
    if limit is None:
        shutil.copyfile(archive, first)
    else:
        with tarfile.open(archive) as source, tarfile.open(first, "w", format=tarfile.USTAR_FORMAT) as sink:
            for _ in range(limit):
                member = source.next()
                assert member is not None
                sink.addfile(member, source.extractfile(member))
    for copy in range(1, 4):
        os.link(first, folder / f"archive-{copy}.tar")
    return first


def child(name: str, *words: Any) -> Figures:
    """Return the figures of a process of its own."""
    command = [sys.executable, __file__, "--only", name, *map(str, words)]
    return dict(json.loads(subprocess.check_output(command)))


def measure_decode(version: str, archive: str) -> Figures:
    """Decode all files in one thread."""
    files, rules = contents(archive), rules_of(version)
    return timed(lambda: [decode_file(data, **rules) for data in files], len(files))


def measure_encode(version: str, archive: str) -> Figures:
    """Run the session on all pixels in one thread."""
    pixels_NHWC = decoded(contents(archive), rules_of(version))
    encode = bare_encoder(version)
    return timed(lambda: encode(pixels_NHWC), len(pixels_NHWC))


def measure_loop(version: str, archive: str) -> Figures:
    """Decode and encode half of the files in each of two processes, which begin together."""
    command = [sys.executable, __file__, "--only", "half", version, archive]
    halves = [
        subprocess.Popen([*command, str(half)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for half in range(2)
    ]
    for half in halves:
        assert half.stdout is not None
        assert half.stdout.readline() == "ready\n"
    started_s = time.perf_counter()
    for half in halves:
        assert half.stdin is not None
        half.stdin.write("go\n")
        half.stdin.flush()
    found = [json.loads(half.communicate()[0]) for half in halves]
    wall_s = max(each["ended_s"] for each in found) - started_s
    return {"wall_s": wall_s, "cpu_s": sum(e["cpu_s"] for e in found), "rows": sum(e["rows"] for e in found)}


def measure_half(version: str, archive: str, half: str) -> Figures:
    """Wait for a line, and decode and encode every second file."""
    files, rules, encode = contents(archive)[int(half) :: 2], rules_of(version), bare_encoder(version)
    encode(decoded(files[:CPU_BATCH_ROWS], rules))
    print("ready", flush=True)
    sys.stdin.readline()
    cpu_s = time.process_time()
    for start in range(0, len(files), CPU_BATCH_ROWS):
        encode(decoded(files[start : start + CPU_BATCH_ROWS], rules))
    # The clock is the same in all processes.
    return {"ended_s": time.perf_counter(), "cpu_s": time.process_time() - cpu_s, "rows": len(files)}


def measure_embed(version: str, archive: str, copies: int = 1) -> Figures:
    """Do what the command does once its encoder is loaded."""
    encoder = LocalEncoder(Path(version), device="cpu")
    encoder.encode(np.zeros((2, *encoder.info.input.shape.as_tuple), np.uint8), log_variance=False)
    settings = RunSettings(batch_rows=encoder.batch_rows, threads=encoder.lanes + available_cpus())
    import_pyarrow()  # start-up, as the encoder
    archives = [Path(archive).with_name(f"archive-{copy}.tar") for copy in range(copies)]
    with tempfile.TemporaryDirectory() as folder:
        started_s, cpu_s = time.perf_counter(), time.process_time()
        source, options = open_sources(archives), SourceOptions()
        provenance = Provenance(encoder=encoder.info, source=source.name, columns=Columns())
        job = job_of(source, provenance, options, part_rows=PART_ROWS)
        output = open_output(
            Path(folder, "z"), provenance, job, part_rows=PART_ROWS, overwrite=False, resume=False
        )
        summary = embed(source, encoder, output, settings)
        wall_s, cpu_s = time.perf_counter() - started_s, time.process_time() - cpu_s
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"wall_s": wall_s, "cpu_s": cpu_s, "rows": summary.rows, "peak_mib": peak_mib}


def contents(archive: str) -> list[bytes]:
    """Return the files in an archive."""
    with tarfile.open(archive) as source:
        return [source.extractfile(member).read() for member in source if member.isreg()]  # type: ignore[union-attr]


def rules_of(version: str) -> dict[str, Any]:
    """Return the arguments of `decode_file` for a model."""
    manifest = read_bundle(Path(version)).manifest
    return {"shape": manifest.image, "resize": manifest.resize}


def decoded(files: list[bytes], rules: dict[str, Any]) -> NDArray[np.uint8]:
    """Return the pixels of files."""
    return np.stack([decode_file(data, **rules) for data in files])


def bare_encoder(version: str) -> Any:
    """Return a function that runs the session on pixels, in batches and in one thread."""
    data = read_bundle(Path(version)).graphs["encoder", "fp32"]
    session = make_session(data, name="encoder.onnx", provider=choose_provider("cpu"), threads=1)

    def encode(pixels_NHWC: NDArray[np.uint8]) -> None:
        for start in range(0, len(pixels_NHWC), CPU_BATCH_ROWS):
            session.run(["mean", "log_variance"], {"image": pixels_NHWC[start : start + CPU_BATCH_ROWS]})

    encode(pixels_NHWC=np.zeros((2, *read_bundle(Path(version)).manifest.image.as_tuple), np.uint8))
    return encode


def timed(work: Any, rows: int) -> Figures:
    """Return the times of some work."""
    started_s, cpu_s = time.perf_counter(), time.process_time()
    work()
    return {
        "wall_s": time.perf_counter() - started_s,
        "cpu_s": time.process_time() - cpu_s,
        "rows": rows,
    }


def summarize(runs: dict[str, list[Figures]]) -> dict[str, Any]:
    """Return medians, and the medians of ratios within each round."""
    rounds = [dict(zip(runs, each, strict=True)) for each in zip(*runs.values(), strict=True)]
    cpu = [r["embed"]["cpu_s"] / (r["decode"]["cpu_s"] + r["encode"]["cpu_s"]) for r in rounds]
    busy = [r["embed"]["cpu_s"] / r["loop"]["cpu_s"] for r in rounds]
    wall = [r["embed"]["wall_s"] / r["loop"]["wall_s"] for r in rounds]
    return {
        "figure": "convvae-embed from tar archives of JPEG files against bare decoding and encoding; medians",
        "cpu_ratio": round(statistics.median(cpu), 3),
        "cpu_ratio_busy": round(statistics.median(busy), 3),
        "wall_ratio": round(statistics.median(wall), 3),
        "memory_mib": {
            "one_copy": round(max(run["peak_mib"] for run in runs["embed"])),
            "four_copies": round(max(run["peak_mib"] for run in runs["embed_4"])),
        },
        **{name: _median(each) for name, each in runs.items()},
    }


def _median(runs: list[Figures]) -> Figures:
    return {
        "images": runs[0]["rows"],
        "cpu_us_per_image": round(statistics.median(1e6 * run["cpu_s"] / run["rows"] for run in runs), 1),
        "images_per_s": round(statistics.median(run["rows"] / run["wall_s"] for run in runs)),
    }


MEASURES: dict[str, Any] = {
    "decode": measure_decode,
    "encode": measure_encode,
    "loop": measure_loop,
    "half": measure_half,
    "embed": measure_embed,
    "embed_4": lambda version, archive: measure_embed(version, archive, copies=4),
}


if __name__ == "__main__":
    main()
