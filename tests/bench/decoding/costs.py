"""Measure processor time per image file with the packages of one commit; print it as JSON.

    python tests/bench/decoding/costs.py FOLDER

`image_decoding.py` writes the folder and runs this program, with older commits too.
"""

import asyncio
import importlib
import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import simplejpeg

from convvae_service.bundle import ImageShape, Resize
from convvae_service.images import ModelInput, decode_file, open_source
from convvae_trainer.data.folder import read_folder

# Files of noise by their size, and how often each is decoded.
SIZES = {"28x28x1": 2000, "32x32x3": 2000, "64x64x3": 1000, "256x256x3": 100, "1024x1024x3": 10}
BATCH_FILES = 64
REDUCED = ("noise", "photographs")
TARGET = ImageShape(height=64, width=64, channels=3)
MAX_PIXELS = 100_000_000


def main() -> None:
    """Measure, and print microseconds by kind of work."""
    folder = Path(sys.argv[1])
    print(json.dumps(own_size(folder) | batches(folder) | reduced(folder) | folders(folder / "cifar10")))


def own_size(folder: Path) -> dict[str, float]:
    """Decode files at their own size, with `decode_file` and with simplejpeg alone."""
    found = {}
    for size, times in SIZES.items():
        data = (folder / f"{size}.jpg").read_bytes()
        height, width, channels = map(int, size.split("x"))
        shape = ImageShape(height=height, width=width, channels=channels)
        colours = "RGB" if channels == 3 else "GRAY"
        found[size] = cpu_us(partial(decode_file, data, shape=shape, resize=Resize()), times)
        found[f"{size}, bare"] = cpu_us(partial(simplejpeg.decode_jpeg, data, colours), times)
    return found


def batches(folder: Path) -> dict[str, float]:
    """Decode the files of one call in two threads, one call after the other."""
    files = [(folder / "28x28x1.jpg").read_bytes()] * BATCH_FILES
    shape = ImageShape(height=28, width=28, channels=1)
    images: Any = importlib.import_module("convvae_service.images")
    with ThreadPoolExecutor(2) as executor:
        threads: Any = executor
        if hasattr(images, "DecodingThreads"):
            threads = images.DecodingThreads(executor, max_large=2, max_bytes=1 << 30)
        rules: Any = {"resize": Resize(), "max_pixels": MAX_PIXELS, "threads": threads, "at_once": 2}
        if hasattr(images, "decode_files"):
            call_us = cpu_us(lambda: images.decode_files(files, shape=shape, **rules).result(), 100)
        else:
            call_us = asyncio.run(on_a_loop(files, shape, rules))
    return {f"28x28x1 in calls of {BATCH_FILES}": call_us / BATCH_FILES}


async def on_a_loop(files: list[bytes], shape: ImageShape, rules: dict[str, Any]) -> float:
    """Decode the files of a call as the service did before `decode_files`: on its event loop."""
    image_rows: Any = importlib.import_module("convvae_service.api.image_rows")
    rows = image_rows.ImageRows(pixels=None, files=tuple(files), num_bytes=0, shape=shape)
    await rows.decode(**rules)
    started_s = time.process_time()
    for _ in range(50):
        await rows.decode(**rules)
    return 1e6 * (time.process_time() - started_s) / 50


def reduced(folder: Path) -> dict[str, float]:
    """Bring files of 1,024 pixels to 64, by each rule that the commit has."""
    rules: dict[str, Any] = {"full": Resize()}
    if hasattr(Resize(), "decode"):
        rules["scaled"] = Resize(decode="scaled")
    found = {}
    for kind in REDUCED:
        files = [path.read_bytes() for path in sorted(folder.glob(f"{kind}-*.jpg"))]
        for name, rule in rules.items():
            work_us = cpu_us(partial(decode_all, files, rule), 3)
            found[f"1024 to 64, {kind}, {name}"] = work_us / len(files)
    return found


def decode_all(files: list[bytes], rule: Resize) -> None:
    """Bring files to the target size."""
    for data in files:
        decode_file(data, shape=TARGET, resize=rule)


def folders(folder: Path) -> dict[str, float]:
    """Read a folder of small files as training does, and as convvae-embed does."""
    shape = ImageShape(height=32, width=32, channels=3)
    source = open_source(str(folder))
    rows = source.rows or 0

    def embed() -> None:
        with closing(source.shards[0].open(0)) as cursor:
            while (batch := cursor.take(128)) is not None:
                batch.read(ModelInput("cifar", shape, Resize()))

    return {
        "CIFAR-10 for training": cpu_us(lambda: read_folder(folder, image_size=None, resize=Resize()), 1)
        / rows,
        "CIFAR-10 for embedding": cpu_us(embed, 1) / rows,
    }


def cpu_us(work: Callable[[], object], times: int) -> float:
    """Return microseconds of processor time that the work takes, after it was done once."""
    work()
    started_s = time.process_time()
    for _ in range(times):
        work()
    return 1e6 * (time.process_time() - started_s) / times


if __name__ == "__main__":
    main()
