"""`convvae-embed` through a real server."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from support.serving import ServerProcess, serving

pytestmark = pytest.mark.one_front


def run_embed(*words: Any) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "convvae_service.pipeline", "run", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def vectors(path: Path, column: str) -> NDArray[np.float32]:
    array = pq.read_table(path).column(column).combine_chunks()
    return np.asarray(array.flatten().to_numpy()).reshape(len(array), -1)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """3000 images as an .npy file: several calls."""
    array = np.random.default_rng(0).integers(0, 256, (3000, 8, 6, 1), dtype=np.uint8)
    np.save(tmp_path / "x.npy", array)
    return tmp_path / "x.npy"


def test_service_gives_what_the_bundle_gives(
    images: Path, tmp_path: Path, tiny_root: Path, tiny_server: ServerProcess
) -> None:
    """The same vectors, ids and metadata, whichever encodes."""
    local, remote = tmp_path / "local.parquet", tmp_path / "remote.parquet"
    ended = run_embed(images, local, "--bundle", tiny_root / "tiny", "--log-variance", "--score")
    assert ended.returncode == 0, ended.stderr
    ended = run_embed(images, remote, "--target", tiny_server.target, "--log-variance", "--score")
    assert ended.returncode == 0, ended.stderr
    for column in ("embedding", "log_variance"):
        np.testing.assert_allclose(vectors(local, column), vectors(remote, column), atol=1e-6)
    for column in ("elbo", "distortion", "rate"):
        one, two = (pq.read_table(path).column(column).to_numpy() for path in (local, remote))
        np.testing.assert_allclose(one, two, rtol=1e-5)
    assert pq.read_table(remote).column("id").to_pylist() == [str(row) for row in range(3000)]
    assert pq.read_schema(remote).metadata == pq.read_schema(local).metadata


def test_a_run_loads_no_pandas(images: Path, tmp_path: Path, tiny_root: Path) -> None:
    """Not even where it is installed: it takes longer to load than the encoder."""
    program = (
        "import sys\nfrom convvae_service.pipeline.cli import app\n"
        "try:\n    app()\nfinally:\n    print([name for name in ('pandas', 'torch') if name in sys.modules])"
    )
    words = ["run", images, tmp_path / "parts", "--bundle", tiny_root / "tiny", "--score"]
    ended = subprocess.run(
        [sys.executable, "-c", program, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.endswith("[]\n")


def test_files_through_the_service(tmp_path: Path, tiny_root: Path, tiny_server: ServerProcess) -> None:
    """Files are resized by the rule in the manifest that the service sends."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    noise = np.random.default_rng(1).integers(0, 256, (20, 11, 17, 3), dtype=np.uint8)
    for number, pixels in enumerate(noise):
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    (folder / "05.png").write_bytes(b"no image")
    sinks = tmp_path / "local.parquet", tmp_path / "remote.parquet"
    for sink, where in zip(
        sinks,
        [("--bundle", tiny_root / "tiny"), ("--target", tiny_server.target, "--model", "tiny@1")],
        strict=True,
    ):
        ended = run_embed(folder, sink, *where, "--on-error", "skip", "--json", "--batch-rows", "3")
        assert ended.returncode == 0, ended.stderr
        summary = json.loads(ended.stdout)
        assert summary["rows"] == 19
        assert summary["skipped_rows"] == [{"id": "05.png", "reason": "not a JPEG, PNG or WebP image"}]
    local, remote = (vectors(sink, "embedding") for sink in sinks)
    np.testing.assert_allclose(local, remote, atol=1e-6)


def test_version_is_fixed_and_named(images: Path, tmp_path: Path, zoo_server: ServerProcess) -> None:
    """The default version at the start of the run answers all of it."""
    sink = tmp_path / "z.parquet"
    ended = run_embed(images, sink, "--target", zoo_server.target, "--model", "tiny")
    assert ended.returncode == 0, ended.stderr
    assert pq.read_schema(sink).metadata[b"convvae.model_version"] == b"2"


def test_names_that_are_not_utf_8(tmp_path: Path, tiny_root: Path) -> None:
    """Folders of the source and of the sink, and the sink itself, may have any name."""
    folder = tmp_path / os.fsdecode(b"a\xe9")
    folder.mkdir()
    for number in range(3):
        Image.new("L", (8, 8), 50 * number).save(folder / f"{number}.png")
    sink = folder / os.fsdecode(b"o\xe9.parquet")
    ended = run_embed(folder, sink, "--bundle", tiny_root / "tiny")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert r"a\xe9/o\xe9.parquet" in ended.stdout
    with sink.open("rb") as file:
        table = pq.read_table(file)
    assert table.column("id").to_pylist() == ["0.png", "1.png", "2.png"]
    assert table.schema.metadata[b"convvae.source"] == rb"a\xe9"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("unknown", "unknown"),
        ("tiny@9", "9"),
        ("", "this server has several models: colour, plain, tiny"),
        ("colour", "takes 10x12x3"),
    ],
)
def test_model_that_does_not_fit_is_one_line(
    model: str, message: str, images: Path, tmp_path: Path, zoo_server: ServerProcess
) -> None:
    """Code 2, and the service's own words."""
    words = ["--model", model] if model else []
    ended = run_embed(images, tmp_path / "z.parquet", "--target", zoo_server.target, *words)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1
    assert message in ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["x.npy"]


def test_busy_service_is_waited_for(images: Path, tmp_path: Path, tiny_root: Path) -> None:
    """A queue that is smaller than what the run sends slows it down, and does not end it."""
    limits = ["--max-queued-rows", "256", "--max-rows-per-call", "256", "--max-batch-rows", "16"]
    with serving(tiny_root, *limits) as server:
        ended = run_embed(images, tmp_path / "z.parquet", "--target", server.target, "--in-flight", "8")
    assert ended.returncode == 0, ended.stderr
    assert pq.read_metadata(tmp_path / "z.parquet").num_rows == 3000
