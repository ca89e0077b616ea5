"""Kill convvae-embed at random moments, resume it, and write results/embed_kills.json.

    python tests/bench/embed_kills.py [DATA_ROOT] [BENCH_ROOT] [--kills 20]

The 70,000 MNIST images, ten times, go to parts of 2,000 in a process that is killed by SIGKILL again and
again: each time after it has written at least one more part, and a random moment later. A kill counts if the
process ran and the result was not complete. Then the run is resumed to its end, and compared with an
undisturbed one.
`journal_share` is the part of an undisturbed run's time that writing the journal takes, with its syncs, at
the default size of parts.

It takes about two minutes on two idle CPUs.
"""

import argparse
import datetime
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from convvae_service.pipeline.journal import Journal
from convvae_service.pipeline.result import open_result, vectors
from convvae_trainer.runs.provenance import hardware

sys.path.insert(0, str(Path(__file__).parents[1]))
from bench.embed_throughput import measure_embed, repeated
from bench.start_up import publish_reference
from support.embed_kills import finish, kill_after, parts_on_disk

RESULT = Path(__file__).parent / "results" / "embed_kills.json"
REPEATED = 10
IMAGES = REPEATED * 70_000
KILLED_PART_ROWS = 2000
MAX_DELAY_S = 0.3


def main() -> None:
    """Run the measurement and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data_root", nargs="?", default="../shared/data", type=Path)
    parser.add_argument("bench_root", nargs="?", default="../shared/bench", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    load_before = os.getloadavg()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        version = publish_reference(folder / "models", options.bench_root)
        images = repeated(options.data_root, folder / "images.idx", REPEATED)
        words = ["--bundle", version, "--device", "cpu", "--part-rows", KILLED_PART_ROWS]
        finish([images, folder / "whole", *words])
        draw, result = random.Random(options.seed), folder / "killed"
        kills = []
        for _ in range(options.kills):
            delay_s = draw.uniform(0, MAX_DELAY_S)
            parts = kill_after([images, result, *words, "--resume"], result, new_parts=1, delay_s=delay_s)
            kills.append({"delay_s": round(delay_s, 3), "parts": parts})
        summary = finish([images, result, *words, "--resume"])
        found = compare(folder / "whole", result)
        share = journal_share(images, version)
    record: dict[str, Any] = {
        "figure": "convvae-embed killed at random moments inside its run, and resumed",
        "kills": kills,
        "resumed_rows": summary["resumed"],
        **found,
        "journal_share": round(share, 5),
        "met": {
            "every id once": found["lost"] == found["doubled"] == 0,
            "vectors within 1e-6": found["largest_difference"] <= 1e-6,
            "journal at most 1 % of the time": share <= 0.01,
        },
        "hardware": hardware(),
        "load_average_1_5_15_min": {"before": list(load_before), "after": list(os.getloadavg())},
        "command": f"python tests/bench/embed_kills.py --kills {options.kills} --seed {options.seed}",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps({"kills": len(kills), **found, "journal_share": record["journal_share"]}))


def compare(whole: Path, killed: Path) -> dict[str, Any]:
    """Return lost and doubled ids of a result, and the largest difference of its vectors from another."""
    ids = pq.read_table(killed, columns=["id"]).column("id").to_pylist()
    expected = pq.read_table(whole, columns=["id"]).column("id").to_pylist()
    one, two = (
        np.concatenate([vectors(batch) for batch in open_result(path).batches(["embedding"])])
        for path in (whole, killed)
    )
    return {
        "images": IMAGES,
        "parts": parts_on_disk(killed),
        "lost": len(set(expected) - set(ids)),
        "doubled": len(ids) - len(set(ids)),
        "largest_difference": float(np.abs(one - two).max()) if ids == expected else float("inf"),
    }


def journal_share(images: Path, version: Path) -> float:
    """Return the share of an undisturbed run in which the journal is opened, written and synced."""
    spent_s = 0.0

    def timed(method: Any) -> Any:
        def call(*words: Any, **named: Any) -> Any:
            nonlocal spent_s
            started_s = time.perf_counter()
            try:
                return method(*words, **named)
            finally:
                spent_s += time.perf_counter() - started_s

        return call

    for name in ("__init__", "begin", "add", "close"):
        setattr(Journal, name, timed(getattr(Journal, name)))
    wall_s = measure_embed(images, str(version))["wall_s"]
    return spent_s / wall_s


if __name__ == "__main__":
    main()
