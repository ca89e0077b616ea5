"""Runs of `convvae-embed` on a Ray cluster, whose results are compared with those of the local engine."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

TOKEN = "no-secret-" * 6
WORKER = "ray::MapWorker(MapBatches(Worker))"
WAIT_S = 120.0
ROWS, PART_ROWS = 200_000, 10_000


@dataclass(frozen=True)
class Ended:
    """The end of a run."""

    code: int
    out: str
    err: str


def start(*words: Any, **environment: str) -> "subprocess.Popen[str]":
    """Start `convvae-embed run` with these words."""
    command = [sys.executable, "-m", "convvae_service.pipeline", "run", *map(str, words)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"RAY_AUTH_TOKEN": TOKEN} | environment,
    )


def end(process: "subprocess.Popen[str]") -> Ended:
    """Wait for the end of a run."""
    try:
        out, err = process.communicate(timeout=WAIT_S)
    finally:
        process.kill()
    return Ended(process.returncode, out, err)


def run(*words: Any, **environment: str) -> Ended:
    """Run `convvae-embed run` with these words to its end."""
    return end(start(*words, **environment))


def write_source(folder: Path) -> Path:
    """Write `ROWS` small images as an .npy file, and return its path."""
    path = folder / "x.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (ROWS, 8, 6, 1), dtype=np.uint8))
    return path


def run_locally(source: Path, root: Path, *words: Any) -> Path:
    """Write the result of the local engine beside a source, and return its path."""
    result = source.parent / "local"
    ended = run(source, result, "--bundle", root / "tiny", "--device", "cpu", *words)
    assert ended.code == 0, ended.err
    return result


def assert_same_rows(result: Path, expected: Path) -> None:
    """Check ids, order, kept columns and vectors, of each part, and that the journal has them all."""
    one, two = pq.read_table(result), pq.read_table(expected)
    assert one.schema.equals(two.schema)
    assert len(one.column("id").unique()) == len(one)
    vectors = ("embedding", "log_variance")
    for name in one.column_names:
        if name not in vectors:
            assert one.column(name).equals(two.column(name)), name
            continue
        found, wanted = (each.column(name).combine_chunks().flatten().to_numpy() for each in (one, two))
        np.testing.assert_allclose(found, wanted, atol=1e-6)
    described, wanted = (json.loads((each / "_result.json").read_text()) for each in (result, expected))
    for name in ("rows", "failed", "left_out", "metadata"):
        assert described[name] == wanted[name]
    assert [part["rows"] for part in described["parts"]] == [part["rows"] for part in wanted["parts"]]
