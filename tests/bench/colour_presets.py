"""Train the presets for colour images on CIFAR-10 and write the figures to results/colour_presets.json.

    python tests/bench/colour_presets.py [DATA_ROOT] [--epochs N] [--threads 2]

Without --epochs each preset trains for its own 15 minutes. DATA_ROOT (default ../shared/data) holds
`cifar10-train.tar`: 50,000 JPEG files by class, of which a tenth are held out. `colour64` resizes them.
"""

import argparse
import datetime
import json
import os
import shlex
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parent / "results" / "colour_presets.json"
PRESETS = ("colour32", "colour64")
FIGURES = ("psnr_db", "ssim", "mse", "elbo", "rate", "sigma", "active_units")


def main() -> None:
    """Train both presets one after the other and write what they came to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data_root", nargs="?", default="../shared/data")
    parser.add_argument("--epochs", type=int, help="instead of the preset's minutes")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    from convvae_trainer.compute.process import configure_process
    from convvae_trainer.runs.provenance import code_commit, hardware, library_versions

    configure_process(threads=options.threads)
    load_before = os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(Path(options.data_root) / "cifar10-train.tar") as tar:
            tar.extractall(folder, filter="data")
        changes = {"dataset": f"{folder}/cifar10/train", "epochs": options.epochs, "threads": options.threads}
        presets = {name: measure(name, changes, Path(folder) / name) for name in PRESETS}
    result = {
        "figure": "presets for colour images on CIFAR-10",
        "presets": presets,
        "load_average_1_5_15_min": {"before": list(load_before), "after": list(os.getloadavg())},
        "hardware": hardware(),
        "command": shlex.join(["python", "tests/bench/colour_presets.py", *sys.argv[1:]]),
        "commit": code_commit(),
        "libraries": library_versions(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(presets, indent=2), f"written to {options.out.resolve()}", sep="\n")


def measure(preset: str, changes: dict[str, Any], run_dir: Path) -> dict[str, Any]:
    """Train a preset and return its figures on the test images."""
    from convvae_trainer.data.dataset import load_dataset
    from convvae_trainer.runs.fit import fit
    from convvae_trainer.settings.assembly import config_from
    from convvae_trainer.settings.presets import preset_settings

    config = config_from(preset_settings(preset), {"device": "cpu", "tensorboard": False}, changes)
    data = load_dataset(config)
    start = time.process_time()
    done = fit(config, data, run_dir)
    figures = done.evaluation.to_json_object()
    return {
        "epochs": done.progress.epoch,
        "steps": done.progress.step,
        "images": len(data.train),
        "training_s": round(done.progress.elapsed_s, 1),
        "cpu_s": round(time.process_time() - start, 1),
        "precision": done.run.record.precision,
        "test_images": figures["images"],
        **{name: figures[name] for name in FIGURES},
    }


if __name__ == "__main__":
    main()
