"""Measure how soon a server of one MNIST bundle answers SERVING, and write results/start_up.json.

    python tests/bench/start_up.py [BENCH_ROOT] [--runs 10]

The time runs from the start of the command to the first answer of SERVING; the interpreter's start is in it.
BENCH_ROOT holds the reference graphs `encoder_28x28x1.onnx` and `decoder_28x28x1.onnx` (default
../shared/bench).
"""

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from convvae_service.bundle import (
    CAPABILITIES,
    Accuracy,
    ImageShape,
    LikelihoodSpec,
    Manifest,
    Parity,
    Resize,
    Training,
    describe_graph,
    publish,
)
from convvae_trainer.runs.provenance import hardware

sys.path.insert(0, str(Path(__file__).parents[1]))
from support.serving import serving

RESULT = Path(__file__).parent / "results" / "start_up.json"
TARGET_S = 1.5
LATENT_DIMS = {"28x28x1": 32, "64x64x3": 64}


def main() -> None:
    """Run the measurement and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bench_root", nargs="?", default="../shared/bench", type=Path)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    load_before = os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        publish_reference(Path(folder), options.bench_root)
        ready = [seconds_until_serving(Path(folder)) for _ in range(options.runs)]
    result = {
        "figure": "seconds from the command to SERVING, one 28x28x1 bundle",
        "median_s": round(statistics.median(ready), 3),
        "worst_s": round(max(ready), 3),
        "target_s": TARGET_S,
        "runs": options.runs,
        "import_convvae_s": round(min(seconds_to_import("convvae") for _ in range(5)), 3),
        "import_convvae_service_server_s": round(
            min(seconds_to_import("convvae_service.server.lifecycle") for _ in range(5)), 3
        ),
        "hardware": hardware(),
        "load_average_1_5_15_min": {"before": list(load_before), "after": list(os.getloadavg())},
        "libraries": {
            name: metadata.version(name)
            for name in ("convvae", "grpcio", "numpy", "onnxruntime-gpu", "protobuf")
        },
        "command": "python tests/bench/start_up.py",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(f"SERVING after {result['median_s']} s (median of {options.runs}), worst {result['worst_s']} s")


def seconds_until_serving(root: Path) -> float:
    """Start a server, and return how long the first answer of SERVING took."""
    with serving(root) as server, grpc.insecure_channel(server.target) as channel:
        reply = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
        return time.monotonic() - server.started_s


def seconds_to_import(module: str) -> float:
    """Return how long an interpreter takes to import a module, its own start taken off."""
    times = []
    for code in (f"import {module}", "pass"):
        started_s = time.monotonic()
        subprocess.run([sys.executable, "-c", code], check=True)
        times.append(time.monotonic() - started_s)
    return times[0] - times[1]


def publish_reference(root: Path, bench_root: Path, graph: str = "28x28x1") -> Path:
    """Publish the reference graphs as the model `mnist`, those of another size as `reference-SIZE`."""
    graphs = {f"{r}.onnx": (bench_root / f"{r}_{graph}.onnx").read_bytes() for r in ("encoder", "decoder")}
    height, width, channels = map(int, graph.split("x"))
    image, latent_dim = ImageShape(height=height, width=width, channels=channels), LATENT_DIMS[graph]
    manifest = Manifest(
        model="mnist" if graph == "28x28x1" else f"reference-{graph}",
        objective="vae",
        likelihood=LikelihoodSpec(name="bernoulli", probability_clamp=1e-6),
        image=image,
        latent_dim=latent_dim,
        capabilities=CAPABILITIES,
        graphs=tuple(
            describe_graph(
                graphs[f"{role}.onnx"],
                role=role,
                precision="fp32",
                opset=20,
                image=image,
                latent_dim=latent_dim,
                has_log_variance=True,
            )
            for role in ("encoder", "decoder")
        ),
        parity={"fp32": Parity(batches=(), mean=0.0, log_variance=0.0, image_steps=0, pixel_mean=0.0)},
        accuracy={"fp32": Accuracy.exact(has_elbo=True)},
        training=Training(dataset="reference graphs", images=0, epochs=0, seed=0, commit=""),
        resize=Resize(),
    )
    return publish(root, manifest, graphs)


if __name__ == "__main__":
    main()
