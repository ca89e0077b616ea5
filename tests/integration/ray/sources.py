"""Every kind of source and sink on Ray, with the result of the local engine: `make ray-test`."""

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from support.ray_cluster import ray_cluster
from support.ray_runs import TOKEN, Ended, run
from support.s3_server import s3_server
from support.tar_file import write_tar

COLUMNS = ["--log-variance", "--score", "--thumbnail", "--on-error", "skip"]
CASES: dict[str, tuple[list[str], str, list[Any]]] = {
    "archives": (
        ["s{{0..2}}.tar"],
        "z",
        ["--keep", "cls,txt", *COLUMNS, "--part-rows", 70, "--batch-rows", 7],
    ),
    "one archive": (["s1.tar"], "z.parquet", ["--on-error", "skip", "--batch-rows", 4]),
    "tables": (
        ["p*.parquet"],
        "z",
        ["--keep", "label", "--where", "label in (1, 2, 5) and url != 'u12'", *COLUMNS, "--part-rows", 20],
    ),
    "ids": (["p*.parquet"], "z.npy", ["--id-column", "url", "--on-error", 90, "--float16"]),
    "too many failed": (["s{{0..2}}.tar"], "z.parquet", ["--on-error", 5, "--batch-rows", 8]),
    "array": (["x.npz"], "z.parquet", ["--keep", "label"]),
    "several": (["x.npy", "pictures", "s0.tar"], "z", ["--on-error", "skip", "--part-rows", 999]),
    "remote archives": (["s3://bucket/s{{0..2}}.tar?{query}"], "z", [*COLUMNS, "--part-rows", 70]),
    "remote folder": (["s3://bucket/pictures?{query}"], "z.npy", ["--on-error", "skip", "--batch-rows", 16]),
    "remote table": (["s3://bucket/p*.parquet?{query}"], "z", ["--on-error", "skip", "--keep", "label"]),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Archives, tables, a folder and arrays. Some images cannot be read."""
    folder = tmp_path_factory.mktemp("sources")
    noise = np.random.default_rng(3)
    files: list[bytes] = []
    for number in range(300):
        stream = io.BytesIO()
        Image.fromarray(noise.integers(0, 256, (9, 7, 3), dtype=np.uint8)).save(stream, "PNG")
        files.append(stream.getvalue() if number % 11 != 10 else b"no image")
        picture = folder / "pictures" / str(number % 5) / f"{number}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.write_bytes(files[-1])
    for shard in range(3):
        rows = range(100 * shard, 100 * shard + 100)
        members = [(f"{row:04}.png", files[row]) for row in rows]
        members += [(f"{row:04}.cls", str(row % 10).encode()) for row in rows]
        members += [(f"{row:04}.txt", f"t{row}".encode()) for row in rows if row % 3]
        write_tar(folder / f"s{shard}.tar", sorted(members))
        table = {
            "image": [{"bytes": files[row], "path": f"{row}.png"} for row in rows],
            "label": [row % 10 for row in rows],
            "url": [f"u{row}" for row in rows],
        }
        pq.write_table(pa.table(table), folder / f"p{shard}.parquet", row_group_size=37)
    images = noise.integers(0, 256, (3000, 8, 6, 1), dtype=np.uint8)
    np.save(folder / "x.npy", images)
    np.savez(folder / "x.npz", images=images, labels=np.arange(3000) % 7)
    return folder


@pytest.fixture(scope="module")
def query(folder: Path) -> Iterator[str]:
    """The end of an address of these files on a server of S3."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    objects = {f"bucket/{path.relative_to(folder)}": path.read_bytes() for path in paths}
    with pytest.MonkeyPatch.context() as patch, s3_server(objects) as query:
        patch.setenv("AWS_ACCESS_KEY_ID", "any")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "any")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield query


@pytest.fixture(scope="module")
def cluster(query: str) -> Iterator[str]:
    """Address of a cluster of two CPUs, which has the keys of the server."""
    del query
    with ray_cluster(2, token=TOKEN) as address:
        yield address


def told(ended: Ended) -> tuple[int, dict[str, Any], str]:
    """Return the exit code, the summary without what differs from run to run, and the errors."""
    summary = json.loads(ended.out) if ended.out else {}
    return (
        ended.code,
        {k: v for k, v in summary.items() if k not in ("file", "seconds", "rows_per_s")},
        ended.err,
    )


def written(sink: Path) -> dict[str, bytes]:
    """Return the contents of all files of a result but the journal, which has the time of the run."""
    paths: Sequence[Path] = sorted(sink.parent.rglob("*"))
    return {
        str(path.relative_to(sink.parent)): path.read_bytes()
        for path in paths
        if path.is_file() and path.name != "_journal.jsonl"
    }


@pytest.mark.parametrize("case", CASES)
def test_results_are_those_of_the_local_engine(
    case: str, cluster: str, folder: Path, query: str, tiny_root: Path, tmp_path: Path
) -> None:
    """Files byte by byte, summary, skipped images and errors."""
    names, sink, options = CASES[case]
    filled = [name.format(query=query) for name in names]
    sources = [name if "://" in name else folder / name for name in filled]
    words = [*options, "--bundle", tiny_root / "tiny", "--device", "cpu", "--json"]
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one = run(*sources, tmp_path / "one" / sink, *words)
    two = run(*sources, tmp_path / "two" / sink, *words, "--engine", "ray", "--ray-address", cluster)
    assert told(one) == told(two)
    assert written(tmp_path / "one" / sink) == written(tmp_path / "two" / sink)
    assert one.code == (2 if case == "too many failed" else 0), one.err
