"""Train on binarised MNIST for a given time and write the test ELBO to results/mnist_elbo.json.

    python tests/bench/mnist_elbo.py [DATA_ROOT] [--minutes 10] [--device cpu]

Protocol: the first 50,000 training images, re-binarised in every pass; the 10,000 test images binarised once
with a fixed seed; latent 32, Bernoulli; ELBO with one posterior draw for each test image. DATA_ROOT holds
`MNIST/raw` as torchvision lays it out (default ../shared/data).
"""

import argparse
import datetime
import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULT = Path(__file__).parent / "results" / "mnist_elbo.json"
TARGET = -92.0


def main() -> None:
    """Run the protocol and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data_root", nargs="?", default="../shared/data")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--device", default="cpu", help="as of convvae-train")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        arguments = fit_arguments(options.data_root, options.minutes, options.device)
        places = ["--run-dir", f"{folder}/run", "--models", f"{folder}/models", "--name", "mnist"]
        load_before = os.getloadavg()
        subprocess.run([sys.executable, "-m", "convvae_trainer", *arguments, *places], check=True)
        result = read_result(Path(folder), arguments)
    result["load_average_1_5_15_min"] = {"before": list(load_before), "after": list(os.getloadavg())}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    shown = options.out.resolve()
    print(f"test ELBO {result['test_elbo_nats']:.2f} nats (target {TARGET} or better), written to {shown}")


def fit_arguments(data_root: str, minutes: float, device: str) -> list[str]:
    """Return the arguments of `convvae-train` that are the protocol."""
    return [
        *("fit", "--dataset", "mnist", "--data-root", data_root, "--train-images", "50000"),
        "--validation-share",
        "0",
        *("--binarize", "dynamic", "--likelihood", "bernoulli", "--latent-dim", "32"),
        *("--minutes", f"{minutes:g}", "--seed", "0", "--device", device),
    ]


def read_result(folder: Path, arguments: list[str]) -> dict[str, Any]:
    """Return the figures of the run and the export in `folder`."""
    run, evaluation = (json.loads((folder / "run" / f"{n}.json").read_text()) for n in ("run", "evaluation"))
    version = folder / "models" / "mnist" / "1"
    manifest = json.loads((version / "manifest.json").read_text())
    training = manifest["training"]
    return {
        "figure": "ELBO on binarised MNIST, nats per image, one posterior draw, all test images",
        "test_elbo_nats": evaluation["elbo"],
        "target_nats": TARGET,
        "distortion_nats": evaluation["distortion"],
        "rate_nats": evaluation["rate"],
        "active_units": evaluation["active_units"],
        "latent_dim": evaluation["latent_dim"],
        "test_images": evaluation["images"],
        "train_images": training["images"],
        "binarize_seed": evaluation["binarize_seed"],
        "posterior_seed": evaluation["seed"],
        "training_seconds": training["metrics"]["training_seconds"],
        "epochs": training["epochs"],
        "images_per_second": round(
            training["images"] * training["epochs"] / training["metrics"]["training_seconds"]
        ),
        "graph_bytes": {graph["file"]: graph["bytes"] for graph in manifest["graphs"]},
        "parity": manifest["parity"]["fp32"],
        "precision": run["precision"],
        "computation_reason": run["reason"],
        "threads": run["threads"],
        "device": run["segments"][0]["device"],
        "hardware": run["segments"][0]["hardware"],
        "command": shlex.join(["python", "tests/bench/mnist_elbo.py", *sys.argv[1:]]),
        "trainer_command": shlex.join(["convvae-train", *arguments]),
        "commit": training["commit"],
        "libraries": training["libraries"],
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


if __name__ == "__main__":
    main()
