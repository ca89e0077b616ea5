"""Measure convvae-embed from tar archives of JPEG files to Parquet parts: results/embed_archive.json.

    python tests/bench/embed_archive.py [DATA_ROOT] [BENCH_ROOT] [--repeats 3] [--graph 28x28x1] [--limit N]

`embed` is a whole run from `cifar10-train.tar` in DATA_ROOT, 50,000 small files, with a bundle in its own
process, once it is loaded. It keeps all CPUs busy. So does all that it is compared with, in turns: processes,
one for each CPU and all at the same time, which have the files in memory and share them. `decode` brings the
files to the model's pixels, `encode` runs the bare session on these pixels, and `loop` does one after the
other, all in calls of as many rows as the run's. They write nothing. So `cpu_ratio` is embed / (decode +
encode), and `wall_ratio` is embed / loop. `alone` is the loop in a single process: two threads of one core
take more CPU time for the same work than one, and `cpu_ratio_alone`, embed / alone, has this too. The run's
own decoding processes are started before, and count with it. `memory_mib` has the sum of the peaks of all
its processes with one copy of the archive, and with four.

It takes about two minutes on two idle CPUs.
"""

import argparse
import datetime
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convvae_service.bundle import read_bundle
from convvae_service.engine.cpus import available_cpus
from convvae_service.engine.runtime import choose_provider, make_session
from convvae_service.images import DecodingProcesses, SourceOptions, decode_file, open_sources
from convvae_service.pipeline.local import CPU_CALL_ROWS, LocalEncoder
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
STAGES = ("decode", "encode", "loop")
RATIOS = ("cpu_ratio", "cpu_ratio_alone", "wall_ratio", "memory_mib")
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
        runs: dict[str, list[Figures]] = {each: [] for each in (*STAGES, "alone", "embed", "embed_4")}
        for _ in range(options.repeats):
            for each, found in runs.items():
                found.append(child(each, version, archive))
    result = {**summarize(runs), "graph": options.graph, "repeats": options.repeats, "hardware": hardware()}
    result["call_rows"] = CPU_CALL_ROWS
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


def measure_bare(stage: str, version: str, archive: str, processes: int) -> Figures:
    """Do a stage for all files in processes that begin together, each with a share of the files."""
    command = [sys.executable, __file__, "--only", "share", stage, version, archive, str(processes)]
    shares = [
        subprocess.Popen([*command, str(index)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for index in range(processes)
    ]
    for share in shares:
        assert share.stdout is not None
        assert share.stdout.readline() == "ready\n"
    started_s = time.perf_counter()
    for share in shares:
        assert share.stdin is not None
        share.stdin.write("go\n")
        share.stdin.flush()
    found = [json.loads(share.communicate()[0]) for share in shares]
    # The clock is the same in all processes.
    wall_s = max(each["ended_s"] for each in found) - started_s
    return {"wall_s": wall_s, "cpu_s": sum(e["cpu_s"] for e in found), "rows": sum(e["rows"] for e in found)}


def measure_share(stage: str, version: str, archive: str, processes: str, index: str) -> Figures:
    """Wait for a line, and do a stage for a share of the files, batch by batch."""
    files, rules, encode = (
        contents(archive)[int(index) :: int(processes)],
        rules_of(version),
        bare_encoder(version),
    )
    batches = [files[start : start + CPU_CALL_ROWS] for start in range(0, len(files), CPU_CALL_ROWS)]
    pixels = [decoded(batch, rules) for batch in (batches if stage == "encode" else batches[:1])]
    encode(pixels[0])
    print("ready", flush=True)
    sys.stdin.readline()
    cpu_s = time.process_time()
    if stage == "encode":
        for pixels_BHWC in pixels:
            encode(pixels_BHWC)
    else:
        for batch in batches:
            pixels_BHWC = decoded(batch, rules)
            if stage == "loop":
                encode(pixels_BHWC)
    return {"ended_s": time.perf_counter(), "cpu_s": time.process_time() - cpu_s, "rows": len(files)}


def measure_embed(version: str, archive: str, copies: int = 1) -> Figures:
    """Do what the command does once its encoder is loaded."""
    encoder = LocalEncoder(Path(version), device="cpu")
    encoder.encode(np.zeros((2, *encoder.info.input.shape.as_tuple), np.uint8), log_variance=False)
    settings = RunSettings(batch_rows=encoder.batch_rows, threads=encoder.lanes + available_cpus())
    import_pyarrow()  # start-up, as the encoder
    archives = [Path(archive).with_name(f"archive-{copy}.tar") for copy in range(copies)]
    with tempfile.TemporaryDirectory() as folder, DecodingProcesses(available_cpus()) as decode:
        decode.start()
        started_s, cpu_s = time.perf_counter(), cpu_time_s(decode.pids)
        source, options = open_sources(archives), SourceOptions()
        provenance = Provenance(encoder=encoder.info, source=source.name, columns=Columns())
        job = job_of(source, provenance, options, part_rows=PART_ROWS)
        output = open_output(
            Path(folder, "z"), provenance, job, part_rows=PART_ROWS, overwrite=False, resume=False
        )
        summary = embed(source, encoder, output, settings, decode=decode)
        wall_s, cpu_s = time.perf_counter() - started_s, cpu_time_s(decode.pids) - cpu_s
        peak_mib = sum(map(process_peak_mib, [os.getpid(), *decode.pids]))
    return {"wall_s": wall_s, "cpu_s": cpu_s, "rows": summary.rows, "peak_mib": peak_mib}


def cpu_time_s(children: Sequence[int]) -> float:
    """Return the CPU time of this process and others, in steps of 10 ms."""
    total_s = time.process_time()
    for pid in children:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total_s += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total_s


def process_peak_mib(pid: int) -> float:
    """Return the most memory that a process has had."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


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
    """Return a function that runs the session on the pixels of a batch, in one thread."""
    bundle = read_bundle(Path(version))
    data = bundle.graphs["encoder", "fp32"]
    session = make_session(data, name="encoder.onnx", provider=choose_provider("cpu"), threads=1)

    def encode(pixels_BHWC: NDArray[np.uint8]) -> None:
        session.run(["mean", "log_variance"], {"image": pixels_BHWC})

    return encode


def summarize(runs: dict[str, list[Figures]]) -> dict[str, Any]:
    """Return medians, and the medians of ratios within each round."""
    rounds = [dict(zip(runs, each, strict=True)) for each in zip(*runs.values(), strict=True)]
    cpu = [r["embed"]["cpu_s"] / (r["decode"]["cpu_s"] + r["encode"]["cpu_s"]) for r in rounds]
    alone = [r["embed"]["cpu_s"] / r["alone"]["cpu_s"] for r in rounds]
    wall = [r["embed"]["wall_s"] / r["loop"]["wall_s"] for r in rounds]
    return {
        "figure": "convvae-embed from tar archives of JPEG files against bare decoding and encoding; medians",
        "cpu_ratio": round(statistics.median(cpu), 3),
        "cpu_ratio_alone": round(statistics.median(alone), 3),
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


def _bare(stage: str, processes: int) -> Callable[[str, str], Figures]:
    return lambda version, archive: measure_bare(stage, version, archive, processes)


MEASURES: dict[str, Callable[..., Figures]] = {
    **{stage: _bare(stage, available_cpus()) for stage in STAGES},
    "alone": _bare("loop", 1),
    "share": measure_share,
    "embed": measure_embed,
    "embed_4": lambda version, archive: measure_embed(version, archive, copies=4),
}


if __name__ == "__main__":
    main()
