"""`convvae-embed run --engine ray`: the rows of the local engine, whatever happens to workers and driver."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from support.embed_kills import parts_on_disk
from support.ray_cluster import descendants, ray_cluster, ray_processes
from support.ray_runs import (
    PART_ROWS,
    ROWS,
    TOKEN,
    WAIT_S,
    WORKER,
    Ended,
    assert_same_rows,
    end,
    run,
    run_locally,
    start,
    write_source,
)
from support.serving import ServerProcess
from support.tar_file import write_tar
from support.waiting import wait_until

pytestmark = [pytest.mark.one_front, pytest.mark.slow]


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Address of a cluster of two CPUs."""
    with ray_cluster(2, token=TOKEN) as address:
        yield address
    wait_until(lambda: not ray_processes(WORKER))


@pytest.fixture(scope="module")
def words(cluster: str, tiny_root: Path) -> list[Any]:
    """Options of a run on two workers of the cluster."""
    return ["--bundle", tiny_root / "tiny", "--engine", "ray", "--ray-address", cluster, "--workers", 2]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An .npy file of many small images."""
    return write_source(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def local(source: Path, tiny_root: Path) -> Path:
    """The result of the local engine."""
    return run_locally(source, tiny_root, "--part-rows", PART_ROWS)


def test_killed_worker_loses_and_doubles_nothing(
    words: list[Any], source: Path, local: Path, tmp_path: Path
) -> None:
    """Two workers write the parts of the local engine, though one of them is killed in the middle."""
    result = tmp_path / "z"
    process = start(source, result, *words, "--part-rows", PART_ROWS, "--json")
    try:
        wait_until(lambda: parts_on_disk(result) >= 1, within_s=WAIT_S)
        workers = ray_processes(WORKER)
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        at_kill = parts_on_disk(result)
        ended = end(process)
    finally:
        process.kill()
    assert at_kill < ROWS // PART_ROWS
    assert (ended.code, ended.err) == (0, "")
    summary = json.loads(ended.out)
    assert (summary["rows"], summary["resumed"], summary["skipped"]) == (ROWS, 0, 0)
    assert_same_rows(result, local)


def test_killed_run_is_resumed(words: list[Any], source: Path, local: Path, tmp_path: Path) -> None:
    """After the driver is killed, another goes on after the last part of the journal."""
    result = tmp_path / "z"
    process = start(source, result, *words, "--part-rows", PART_ROWS)
    try:
        wait_until(lambda: parts_on_disk(result) >= 1, within_s=WAIT_S)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (result / "_result.json").exists()
    written = parts_on_disk(result)
    ended = run(source, result, *words, "--part-rows", PART_ROWS, "--resume", "--json")
    assert (ended.code, ended.err) == (0, "")
    assert json.loads(ended.out)["resumed"] == written * PART_ROWS
    assert_same_rows(result, local)


def test_archives_with_unreadable_images(words: list[Any], tmp_path: Path) -> None:
    """Columns, the table of failed images and what is left out are those of the local engine."""
    noise = np.random.default_rng(1).integers(0, 256, (90, 9, 7, 3), dtype=np.uint8)
    for shard in range(3):
        files: dict[str, bytes] = {}
        for number in range(30):
            stream = tmp_path / "one.png"
            Image.fromarray(noise[30 * shard + number]).save(stream)
            files[f"{shard}-{number:02}.png"] = stream.read_bytes() if number % 7 else b"no image"
            files[f"{shard}-{number:02}.cls"] = str(number).encode()
        write_tar(tmp_path / f"s{shard}.tar", files.items())
    options: list[Any] = ["--keep", "cls", "--log-variance", "--thumbnail", "--on-error", "skip"]
    options += ["--part-rows", 13, "--batch-rows", 4, "--max-pixels", 10_000]
    archives = tmp_path / "s{0..2}.tar"
    one, two = tmp_path / "local", tmp_path / "ray"
    ended = run(archives, one, *words[:2], *options)
    assert ended.code == 0, ended.err
    skipped = ended.err
    ended = run(archives, two, *words, *options)
    assert (ended.code, ended.err) == (0, skipped)
    assert "15 skipped" in ended.out
    assert_same_rows(two, one)
    failed = [pq.read_table(each / "_failed").to_pylist() for each in (one, two)]
    assert failed[0] == failed[1]
    assert len(failed[0]) == 15


def test_first_unreadable_image_ends_the_run(words: list[Any], tmp_path: Path) -> None:
    """Workers find relative paths, and one line names the image that cannot be read. No file appears."""
    for number in range(3):
        Image.new("L", (8, 8), 50 * number).save(tmp_path / f"{number}.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    ended = subprocess.run(
        [sys.executable, "-m", "convvae_service.pipeline", "run", "-", "z.parquet", *map(str, words)],
        input="0.png\n1.png\n2.png\nbad.png\n",
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
        env=os.environ | {"RAY_AUTH_TOKEN": TOKEN},
        cwd=tmp_path,
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == (
        "error: bad.png: not a JPEG, PNG or WebP image (--on-error skip leaves such files out)\n"
    )
    assert not (tmp_path / "z.parquet").exists()


def test_source_that_vanishes_is_one_line(words: list[Any], source: Path, tmp_path: Path) -> None:
    """The run ends with the reason, though workers are still busy, and Ray does not end the process first."""
    copy, result = tmp_path / "copy.npy", tmp_path / "z"
    shutil.copy(source, copy)
    process = start(copy, result, *words, "--part-rows", PART_ROWS)
    try:
        wait_until(lambda: parts_on_disk(result) >= 1, within_s=WAIT_S)
        copy.unlink()
        ended = end(process)
    finally:
        process.kill()
    kept = parts_on_disk(result)
    text = f"{kept * PART_ROWS:,} rows in {kept} part{'s' * (kept != 1)} are kept: --resume continues"
    expected = f"error: copy.npy cannot be read: No such file or directory; {text}\n"
    assert ended == Ended(2, "", expected)


def test_own_cluster_is_stopped_at_its_start(source: Path, tiny_root: Path, tmp_path: Path) -> None:
    """A signal while Ray starts has the exit code and line of every stopped run, and no process stays."""
    words = [source, tmp_path / "z", "--bundle", tiny_root / "tiny", "--engine", "ray", "--workers", 1]
    process = start(*words)
    try:
        wait_until(lambda: bool(descendants(process.pid)), within_s=WAIT_S)
        processes = descendants(process.pid)
        process.terminate()
        ended = end(process)
    finally:
        process.kill()
    assert ended == Ended(143, "", "error: stopped by SIGTERM, nothing was written\n")
    wait_until(lambda: not any(Path(f"/proc/{each}").exists() for each in processes))


def test_own_cluster_ends_with_the_run(source: Path, local: Path, tiny_root: Path, tmp_path: Path) -> None:
    """A run that is stopped leaves no process of its cluster, and the local engine may go on with it."""
    result = tmp_path / "z"
    options = [source, result, "--bundle", tiny_root / "tiny", "--part-rows", PART_ROWS]
    process = start(*options, "--engine", "ray", "--workers", 1)
    try:
        wait_until(lambda: parts_on_disk(result) >= 1, within_s=WAIT_S)
        processes = descendants(process.pid)
        assert any(WORKER in Path(f"/proc/{each}/cmdline").read_text() for each in processes)
        process.terminate()
        ended = end(process)
    finally:
        process.kill()
    kept = parts_on_disk(result)
    assert (ended.code, ended.out) == (143, "")
    text = f"{kept * PART_ROWS:,} rows in {kept} part{'s' * (kept != 1)} are kept: --resume continues"
    assert ended.err == f"error: stopped by SIGTERM; {text}\n"
    wait_until(lambda: not any(Path(f"/proc/{each}").exists() for each in processes))
    ended = run(*options, "--resume", "--json")
    assert (ended.code, ended.err) == (0, "")
    assert json.loads(ended.out)["resumed"] == kept * PART_ROWS
    assert_same_rows(result, local)


def test_addresses_without_a_cluster_are_one_line(
    source: Path, tiny_root: Path, tmp_path: Path, tiny_server: ServerProcess
) -> None:
    """A closed port, a server that is silent and one that is another are refused within seconds."""
    options = [source, tmp_path / "z", "--bundle", tiny_root / "tiny", "--engine", "ray", "--ray-address"]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        expected = {
            "127.0.0.1:1": "no Ray cluster answers at 127.0.0.1:1 within 10 s",
            f"127.0.0.1:{port}": f"no Ray cluster answers at 127.0.0.1:{port} within 10 s",
            tiny_server.target: f"the server at {tiny_server.target} is no Ray cluster: UNIMPLEMENTED",
        }
        started_s = time.monotonic()
        processes = {address: start(*options, address) for address in expected}
        ended = {address: end(process) for address, process in processes.items()}
    assert time.monotonic() - started_s < 60
    assert ended == {address: Ended(2, "", f"error: {text}\n") for address, text in expected.items()}
    assert not (tmp_path / "z").exists()


def test_missing_package_is_one_line(source: Path, tiny_root: Path, tmp_path: Path) -> None:
    """The line names the extra, and nothing is written."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "ray.py").write_text("raise ModuleNotFoundError(\"No module named 'ray'\", name='ray')\n")
    path = os.pathsep.join([str(hidden), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    words = [source, tmp_path / "z", "--bundle", tiny_root / "tiny", "--engine", "ray"]
    ended = run(*words, PYTHONPATH=path)
    assert ended == Ended(2, "", "error: ray is not installed: pip install 'convvae[ray]'\n")
    assert not (tmp_path / "z").exists()
