"""Measure what decoding image files costs, and write results/image_decoding.json.

    python tests/bench/image_decoding.py [DATA_ROOT] [--against COMMIT] [--repeats 5] [--epochs 4]

`cpu_us` has microseconds of processor time for a JPEG file: noise at its own size, with `decode_file` and by
simplejpeg alone (`bare`); the files of one call, decoded in the threads of an executor; noise and photographs
of 1,024 pixels brought to 64; and 10,000 CIFAR-10 files, read as training and as convvae-embed read them.
Each run is a process of its own, in which all work is done once to warm up. With `--against`, the same is
measured for that commit, which is unpacked in a temporary folder, and the two take turns. Medians.

`embeddings` compares an encoder's means of files that were decoded at full size and scaled, by cosine. The
model is a small VAE of 64x64x3 that is trained here on parts of photographs and on CIFAR-10. The files of
1,024 pixels are photographs side by side, since there are none so large.

DATA_ROOT holds `cifar10-train.tar` (default ../shared/data).
"""

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from typing import Any

from convvae_trainer.runs.provenance import code_commit, hardware

sys.path.insert(0, str(Path(__file__).parents[1]))
from bench.decoding.costs import BATCH_FILES, REDUCED, SIZES
from bench.decoding.embeddings import compare_embeddings
from bench.decoding.pictures import PhotographCrops, jpeg, noise
from bench.serving.checkout import ROOT, Checkout, checkout_of

RESULT = Path(__file__).parent / "results" / "image_decoding.json"
CIFAR_FILES = 10_000
TRAINING_CROPS = 3_000
NOW = "working copy"
Runs = dict[str, list[dict[str, float]]]


def main() -> None:
    """Run the measurement and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data_root", nargs="?", default="../shared/data", type=Path)
    parser.add_argument("--against", metavar="COMMIT")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=4, help="of the model whose embeddings are compared")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    load_before = os.getloadavg()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_files(folder, options.data_root / "cifar10-train.tar")
        runs = measure_costs(folder, against=options.against, repeats=options.repeats)
        cosines = compare_embeddings(train(folder, epochs=options.epochs))
    result = {
        "figure": "processor time to decode a JPEG file; embeddings of scaled files against full ones",
        **summarize(runs, against=options.against),
        "embeddings": cosines,
        "epochs": options.epochs,
        "repeats": options.repeats,
        "hardware": hardware(),
        "libraries": {name: metadata.version(name) for name in ("convvae", "numpy", "Pillow", "simplejpeg")},
        "commit": code_commit(),
        "command": f"python tests/bench/image_decoding.py --against {options.against}"
        f" --repeats {options.repeats} --epochs {options.epochs}",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "load_average_1_5_15_min": {"before": list(load_before), "after": list(os.getloadavg())},
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({key: result[key] for key in ("cpu_us", "ratios", "embeddings")}, indent=2))


def write_files(folder: Path, cifar: Path) -> None:
    """Write the files that are decoded and those that a model is trained on: the same for all commits."""
    for size in SIZES:
        (folder / f"{size}.jpg").write_bytes(jpeg(noise(*map(int, size.split("x"))), quality=75))
    (folder / "noise-0.jpg").write_bytes((folder / "1024x1024x3.jpg").read_bytes())
    crops = PhotographCrops(seed=0)
    for number in range(6):
        (folder / f"photographs-{number}.jpg").write_bytes(jpeg(crops.mosaic(1024, 256)))
    with tarfile.open(cifar) as archive:
        members = [member for member in archive if member.isfile()]
        archive.extractall(folder, members[:: len(members) // CIFAR_FILES][:CIFAR_FILES], filter="data")
    (folder / "training").mkdir()
    for number in range(TRAINING_CROPS):
        (folder / "training" / f"{number}.jpg").write_bytes(jpeg(crops.any_crop()))
    small = sorted((folder / "cifar10").rglob("*.jpg"))[:: CIFAR_FILES // 1000]
    for number, path in enumerate(small):
        (folder / "training" / f"small-{number}.jpg").write_bytes(path.read_bytes())


def measure_costs(folder: Path, *, against: str | None, repeats: int) -> Runs:
    """Return the figures of each run, by commit."""
    with ExitStack() as stack:
        checkouts = [Checkout(NOW, ROOT)]
        if against:
            checkouts.append(stack.enter_context(checkout_of(against)))
        runs: Runs = {checkout.name: [] for checkout in checkouts}
        words = [sys.executable, str(ROOT / "tests/bench/decoding/costs.py"), str(folder)]
        for _ in range(repeats):
            for checkout in checkouts:
                output = subprocess.check_output(words, env=checkout.environ)
                runs[checkout.name].append(json.loads(output))
    return runs


def train(folder: Path, *, epochs: int) -> Path:
    """Train a small VAE on the training files, and return the folder of its version."""
    flags = {
        "--run-dir": folder / "run",
        "--dataset": folder / "training",
        "--image-size": 64,
        "--epochs": epochs,
        "--width": 16,
        "--models": folder / "models",
        "--name": "pictures",
    }
    words = [str(word) for pair in flags.items() for word in pair]
    subprocess.run(
        [sys.executable, "-m", "convvae_trainer", "fit", *words, "--no-tensorboard"],
        check=True,
        env=Checkout(NOW, ROOT).environ,
        stdout=subprocess.DEVNULL,
    )
    return folder / "models" / "pictures" / "1"


def summarize(runs: Runs, *, against: str | None) -> dict[str, Any]:
    """Return medians by commit, and ratios."""
    cpu_us = {
        commit: {kind: round(statistics.median(run[kind] for run in each), 1) for kind in each[0]}
        for commit, each in runs.items()
    }
    now = cpu_us[NOW]
    ratios: dict[str, Any] = {
        f"1024 to 64, {kind}: full to scaled": round(
            now[f"1024 to 64, {kind}, full"] / now[f"1024 to 64, {kind}, scaled"], 2
        )
        for kind in REDUCED
    }
    if against:
        before = cpu_us[against]
        ratios |= {f"{kind}: before to now": round(before[kind] / now[kind], 2) for kind in before}
        ratios |= {
            f"1024 to 64, {kind}: full before to scaled now": round(
                before[f"1024 to 64, {kind}, full"] / now[f"1024 to 64, {kind}, scaled"], 2
            )
            for kind in REDUCED
        }
    beyond_us = now[f"28x28x1 in calls of {BATCH_FILES}"] - now["28x28x1, bare"]
    return {"cpu_us": cpu_us, "ratios": ratios, "us_beyond_bare_in_calls": round(beyond_us, 1)}


if __name__ == "__main__":
    main()
