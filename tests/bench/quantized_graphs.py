"""Measure int8 graphs beside fp32 ones, and write results/quantized_graphs.json.

    python tests/bench/quantized_graphs.py [BENCH_ROOT] [--pairs 15] [--trained MODEL ...]

Both precisions of the reference graphs of 64x64x3 images take turns at batches of 16, with one thread, and
the processor time of each turn is measured. The ratio is the median over all pairs of turns. The int8 graphs
are made as `convvae-train quantize` makes them, with images of noise.

`--trained models/mnist` also states the accuracy of the int8 graphs of a trained model, as its manifest
has it, and measures its speed. BENCH_ROOT holds the reference graphs (default ../shared/bench).
"""

import argparse
import datetime
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from convvae_service.bundle import Bundle, Role, read_bundle
from convvae_service.engine.runtime import choose_provider, make_session
from convvae_trainer.compare.published import find_version
from convvae_trainer.exports.accuracy import COSINE_MEAN, COSINE_P01, PSNR_LOSS_DB, shortfalls
from convvae_trainer.exports.pixel_input import with_uint8_pixels
from convvae_trainer.exports.quantized import quantized
from convvae_trainer.exports.subpixel import with_subpixel_convolutions
from convvae_trainer.runs.provenance import code_commit, hardware

RESULT = Path(__file__).parent / "results" / "quantized_graphs.json"
BATCH = 16
TURN_S = 0.1
# The least ratio of rows per second, int8 to fp32.
TARGETS: dict[Role, float] = {"encoder": 2.5, "decoder": 1.4}
AIMS: dict[Role, float] = {"encoder": 2.5, "decoder": 1.9}
INPUTS: dict[Role, str] = {"encoder": "image", "decoder": "latent"}
CALIBRATION_BATCHES = 8
VNNI = ("avx512_vnni", "avx_vnni")

Run = Callable[[], object]


def main() -> None:
    """Run the measurement and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bench_root", nargs="?", default="../shared/bench", type=Path)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--trained", action="append", default=[], metavar="MODEL")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    load_before = os.getloadavg()
    reference = {role: measure_reference(options.bench_root, role, pairs=options.pairs) for role in TARGETS}
    trained = [measure_trained(model, pairs=options.pairs) for model in options.trained]
    result = {
        "figure": f"rows/s of int8 graphs over those of fp32, batches of {BATCH}, one thread",
        "targets": TARGETS,
        "aims": AIMS,
        "met": {role: reference[role]["ratio"] >= target for role, target in TARGETS.items()},
        "reference_64x64x3": reference,
        "gate": {"cosine_mean": COSINE_MEAN, "cosine_p01": COSINE_P01, "psnr_loss_db": PSNR_LOSS_DB},
        "trained": trained,
        "pairs": options.pairs,
        "hardware": hardware(),
        "vnni": sorted(set(VNNI) & set(Path("/proc/cpuinfo").read_text().split())),
        "load_average_1_5_15_min": {"before": list(load_before), "after": list(os.getloadavg())},
        "libraries": {
            name: metadata.version(name) for name in ("convvae", "numpy", "onnx", "onnxruntime-gpu")
        },
        "commit": code_commit(),
        "command": " ".join(
            (
                "python tests/bench/quantized_graphs.py",
                *(f"--trained models/{one['model']}" for one in trained),
            )
        ),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print({role: reference[role]["ratio"] for role in reference}, json.dumps(result["met"]))


def measure_reference(bench_root: Path, role: Role, *, pairs: int) -> dict[str, Any]:
    """Return the speed and size of a reference graph in both precisions."""
    fp32 = (bench_root / f"{role}_64x64x3.onnx").read_bytes()
    model = onnx.load_from_string(fp32)
    random = np.random.default_rng(0)
    rows = [random_rows(model, random) for _ in range(CALIBRATION_BATCHES)]
    rewritten = with_uint8_pixels(model) if role == "encoder" else with_subpixel_convolutions(model)
    int8 = quantized(rewritten, rows, float_output=role == "encoder")
    return {
        **compare(fp32, int8, role, rows[0], pairs=pairs),
        "bytes": {"fp32": len(fp32), "int8": len(int8)},
    }


def random_rows(model: onnx.ModelProto, random: np.random.Generator) -> NDArray[Any]:
    """Return a batch of noise for the only input of a graph: uint8 pixels or normal latents."""
    tensor = model.graph.input[0].type.tensor_type
    shape = (BATCH, *(size.dim_value for size in tensor.shape.dim[1:]))
    if tensor.elem_type == onnx.TensorProto.UINT8:
        return random.integers(0, 256, shape, dtype=np.uint8)
    return random.standard_normal(shape, dtype=np.float32)


def measure_trained(model: str, *, pairs: int) -> dict[str, Any]:
    """Return the accuracy of a trained model's int8 graphs, and their speed."""
    version = find_version(model)
    bundle = read_bundle(version.folder)
    manifest = version.manifest
    accuracy = manifest.accuracy["int8"]
    return {
        "model": manifest.model,
        "image": str(manifest.image),
        "training": {"dataset": Path(manifest.training.dataset).name, "epochs": manifest.training.epochs},
        "accuracy": asdict(accuracy),
        "gate_passed": not shortfalls(accuracy),
        **{role: measure_role(bundle, role, pairs=pairs) for role in TARGETS},
    }


def measure_role(bundle: Bundle, role: Role, *, pairs: int) -> dict[str, Any]:
    """Return the speed of one of a bundle's graphs in both precisions."""
    fp32, int8 = bundle.graphs[role, "fp32"], bundle.graphs[role, "int8"]
    rows = random_rows(onnx.load_from_string(fp32), np.random.default_rng(0))
    return compare(fp32, int8, role, rows, pairs=pairs)


def compare(fp32: bytes, int8: bytes, role: Role, rows: NDArray[Any], *, pairs: int) -> dict[str, Any]:
    """Return rows per second of processor time in both precisions, and the ratio over interleaved pairs."""
    runs = [runner(graph, role, rows) for graph in (fp32, int8)]
    for run in runs:
        run()
    turns = [[rows_per_second(run) for run in runs] for _ in range(pairs)]
    ratios = sorted(after / before for before, after in turns)
    return {
        "ratio": round(statistics.median(ratios), 2),
        "ratio_least_and_greatest": [round(ratios[0], 2), round(ratios[-1], 2)],
        "fp32_rows_s": round(statistics.median(before for before, _ in turns)),
        "int8_rows_s": round(statistics.median(after for _, after in turns)),
    }


def runner(graph: bytes, role: Role, rows: NDArray[Any]) -> Run:
    """Return a function that runs a graph on a batch as the service does, with all outputs."""
    session = make_session(graph, name=role, provider=choose_provider("cpu"), threads=1)
    return lambda: session.run(None, {INPUTS[role]: rows})


def rows_per_second(run: Run) -> float:
    """Return the rows in a second of processor time, over one turn."""
    count, start_s = 0, time.process_time()
    while (elapsed_s := time.process_time() - start_s) < TURN_S:
        run()
        count += 1
    return count * BATCH / elapsed_s


if __name__ == "__main__":
    main()
