"""Measure the search in results of convvae-embed, and write results/embed_search.json.

    python tests/bench/embed_search.py [DATA_ROOT] [--minutes 4] [--repeats 3]

`nearest`: seconds for the 15 nearest of 1,000 queries among 1,000,000 vectors of 32 values, exactly, and the
share of 20 queries whose neighbours are those of all distances in float64. `duplicates`: a model is trained
for some minutes on 20,000 of the CIFAR-10 images in `cifar10-train.tar` of DATA_ROOT. 49,900 images and 100
of them again, compressed anew as JPEG, are embedded with it. The recall is the share of these 100 pairs that
`duplicates` finds at the distance that it suggests itself.
"""

import argparse
import datetime
import io
import json
import os
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
from PIL import Image

from convvae_service.bundle import read_bundle
from convvae_service.engine.stages import Engine
from convvae_service.pipeline.search.near_pairs import near_pairs, suggested_threshold
from convvae_service.pipeline.search.nearest import nearest
from convvae_trainer.runs.provenance import hardware

RESULT = Path(__file__).parent / "results" / "embed_search.json"
ROWS, QUERIES, COUNT, LATENT_DIM = 1_000_000, 1000, 15, 32
IMAGES, PLANTED, TRAINED = 50_000, 100, 20_000
CHECKED = 20
BATCH_ROWS = 65_536
JPEG_QUALITY = 90


def main() -> None:
    """Run the measurement and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data_root", nargs="?", default="../shared/data", type=Path)
    parser.add_argument("--minutes", type=float, default=4.0, help="of training")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    load_before = os.getloadavg()
    result: dict[str, Any] = {
        "figure": "search in results of bulk embedding",
        "nearest": measure_nearest(options.repeats),
        "duplicates": measure_duplicates(options.data_root / "cifar10-train.tar", options.minutes),
    }
    result["met"] = {
        "15 nearest of 1,000 among 1,000,000 in 3 s": min(result["nearest"]["seconds"]) <= 3.0,
        "all neighbours are exact": result["nearest"]["exact_share"] == 1.0,
        "recall of planted duplicates 0.99": result["duplicates"]["recall"] >= 0.99,
    }
    result |= {
        "hardware": hardware(),
        "load_average_1_5_15_min": {"before": list(load_before), "after": list(os.getloadavg())},
        "libraries": {name: metadata.version(name) for name in ("convvae", "numpy", "onnxruntime-gpu")},
        "command": f"python tests/bench/embed_search.py --minutes {options.minutes:g}",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result["met"]))


def measure_nearest(repeats: int) -> dict[str, Any]:
    """Return seconds of each repeat, processor seconds, and the share of exact queries."""
    random = np.random.default_rng(0)
    vectors = random.normal(size=(ROWS, LATENT_DIM)).astype(np.float32)
    queries = random.normal(size=(QUERIES, LATENT_DIM)).astype(np.float32)
    seconds, cpu_seconds = [], []
    for _ in range(repeats):
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        found = nearest(queries, [vectors[at : at + BATCH_ROWS] for at in range(0, ROWS, BATCH_ROWS)], COUNT)
        seconds.append(round(time.perf_counter() - began_s, 3))
        cpu_seconds.append(round(time.process_time() - began_cpu_s, 3))
    exact = 0
    for query in range(CHECKED):
        distances = ((vectors.astype(np.float64) - queries[query]) ** 2).sum(axis=1)
        exact += bool((np.argsort(distances, kind="stable")[:COUNT] == found.rows[query]).all())
    return {
        "rows": ROWS,
        "queries": QUERIES,
        "neighbors": COUNT,
        "latent_dim": LATENT_DIM,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "exact_share": exact / CHECKED,
    }


def measure_duplicates(archive: Path, minutes: float) -> dict[str, Any]:
    """Return the recall of planted near-duplicates, and the number of pairs that were found in all."""
    images = read_images(archive)
    random = np.random.default_rng(1)
    originals = np.sort(random.permutation(IMAGES - PLANTED)[:PLANTED])
    images[IMAGES - PLANTED :] = [compressed(image) for image in images[originals]]
    vectors = embedded(images, minutes)
    began_s = time.perf_counter()
    threshold = suggested_threshold(vectors)
    pairs = near_pairs(vectors, threshold, max_pairs=10_000_000)
    seconds = time.perf_counter() - began_s
    found = set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    planted = {(int(row), IMAGES - PLANTED + number) for number, row in enumerate(originals)}
    return {
        "images": IMAGES,
        "planted": PLANTED,
        "threshold": threshold,
        "recall": len(planted & found) / PLANTED,
        "pairs": len(found),
        "seconds": round(seconds, 2),
        "minutes_of_training": minutes,
    }


def read_images(archive: Path) -> NDArray[np.uint8]:
    """Return the images of the archive, uint8 (N, 32, 32, 3)."""
    images = np.empty((IMAGES, 32, 32, 3), np.uint8)
    with tarfile.open(archive) as tar:
        members = (member for member in tar if member.isfile())
        for number, member in zip(range(IMAGES), members, strict=False):
            file = tar.extractfile(member)
            assert file is not None
            images[number] = np.asarray(Image.open(io.BytesIO(file.read())).convert("RGB"))
    return images


def compressed(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the image, compressed anew as JPEG."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=JPEG_QUALITY)
    return np.asarray(Image.open(stream))


def embedded(images: NDArray[np.uint8], minutes: float) -> NDArray[np.float32]:
    """Return the posterior means of a model that is trained on the first of these images."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        np.save(folder / "x.npy", images[:TRAINED])
        words = ["fit", "--dataset", folder / "x.npy", "--run-dir", folder / "run", "--minutes", minutes]
        words += ["--latent-dim", 64, "--models", folder / "models", "--name", "cifar", "--no-tensorboard"]
        subprocess.run([sys.executable, "-m", "convvae_trainer", *map(str, words)], check=True)
        engine = Engine(read_bundle(folder / "models" / "cifar" / "1"), device="cpu")
        means = [engine.encode.run((images[at : at + 256],))[0] for at in range(0, len(images), 256)]
    return np.concatenate(means)


if __name__ == "__main__":
    main()
