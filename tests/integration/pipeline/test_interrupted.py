"""What is left of a `convvae-embed` that does not end by itself: nothing that looks whole."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from support.serving import serving

ROWS = 20_000_000  # minutes of work; the file is all holes and takes no space
WAIT_S = 60.0


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """An .npy file with more rows than any of these tests waits for."""
    path = tmp_path / "source" / "x.npy"
    path.parent.mkdir()
    np.lib.format.open_memmap(path, "w+", np.uint8, (ROWS, 8, 6, 1))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the sink goes."""
    (tmp_path / "sink").mkdir()
    return tmp_path / "sink"


@contextmanager
def running(source: Path, folder: Path, *where: Any) -> "Iterator[subprocess.Popen[str]]":
    """A run that has written some row groups."""
    words = ["-m", "convvae_service.pipeline", "run", source, folder / "z.parquet", *where]
    process = subprocess.Popen([sys.executable, *map(str, words)], stderr=subprocess.PIPE, text=True)
    try:
        deadline_s = time.monotonic() + WAIT_S
        while not any(path.stat().st_size > 1000 for path in folder.iterdir()):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
        yield process
    finally:
        process.kill()
        process.communicate()


def test_killed_run_leaves_no_sink(source: Path, folder: Path, tiny_root: Path) -> None:
    """Not even half of one under its name, and what it left does not stand in the way of the next run."""
    with running(source, folder, "--bundle", tiny_root / "tiny") as process:
        process.kill()
        assert process.wait(WAIT_S) == -signal.SIGKILL
    (left,) = folder.iterdir()
    assert left.name.startswith(".z.parquet.")
    np.save(source, np.zeros((3, 8, 6), np.uint8))
    words = ["run", source, folder / "z.parquet", "--bundle", tiny_root / "tiny"]
    subprocess.run([sys.executable, "-m", "convvae_service.pipeline", *map(str, words)], check=True)
    assert [path.name for path in folder.iterdir()] == ["z.parquet"]
    assert pq.read_table(folder / "z.parquet").num_rows == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_leaves_nothing(
    number: signal.Signals, source: Path, folder: Path, tiny_root: Path
) -> None:
    """The unfinished file is removed, and the exit code names the signal."""
    with running(source, folder, "--bundle", tiny_root / "tiny") as process:
        process.send_signal(number)
        _, errors = process.communicate(timeout=WAIT_S)
    assert process.returncode == 128 + number
    assert errors == f"error: stopped by {number.name}, nothing was written\n"
    assert list(folder.iterdir()) == []


def test_interrupted_run_keeps_the_old_sink(source: Path, folder: Path, tiny_root: Path) -> None:
    """With --overwrite the old file stays until the new one is whole."""
    (folder / "z.parquet").write_bytes(b"old")
    with running(source, folder, "--bundle", tiny_root / "tiny", "--overwrite") as process:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=WAIT_S)
    assert [path.name for path in folder.iterdir()] == ["z.parquet"]
    assert (folder / "z.parquet").read_bytes() == b"old"


def test_run_stops_at_once_while_a_read_hangs(tmp_path: Path, folder: Path, tiny_root: Path) -> None:
    """The unfinished file is gone although a thread waits for a disk that does not answer."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    os.mkfifo(pictures / "a.png")
    words = ["-m", "convvae_service.pipeline", "run", pictures, folder / "z.parquet"]
    process = subprocess.Popen(
        [sys.executable, *map(str, words), "--bundle", str(tiny_root / "tiny")], stderr=subprocess.DEVNULL
    )
    try:
        deadline_s = time.monotonic() + WAIT_S
        while not list(folder.iterdir()) and time.monotonic() < deadline_s:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        while list(folder.iterdir()) and time.monotonic() < deadline_s:
            time.sleep(0.02)
        assert list(folder.iterdir()) == []
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == -signal.SIGTERM
    finally:
        process.kill()
        process.wait()


def test_interrupted_run_through_a_service(source: Path, folder: Path, tiny_root: Path) -> None:
    """Calls in flight are given up."""
    with (
        serving(tiny_root) as server,
        running(source, folder, "--target", server.target, "--batch-rows", 1024) as process,
    ):
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors == "error: stopped by SIGINT, nothing was written\n"
    assert list(folder.iterdir()) == []


def test_restart_of_the_service_is_waited_for(source: Path, folder: Path, tiny_root: Path) -> None:
    """A run goes on when the service is back, and no row is lost or doubled."""
    rows = 200_000
    np.save(source, np.zeros((rows, 8, 6), np.uint8))
    with serving(tiny_root) as server:
        target = server.target
        with running(source, folder, "--target", target) as process:
            assert server.stop() == 0
            with serving(tiny_root, "--address", target):
                _, errors = process.communicate(timeout=WAIT_S)
    assert (process.returncode, errors) == (0, "")
    ids = pq.read_table(folder / "z.parquet", columns=["id"]).column("id").to_pylist()
    assert ids == [str(row) for row in range(rows)]


def test_full_disk_is_one_line(source: Path, folder: Path, tiny_root: Path) -> None:
    """What cannot be written ends the run with code 1, and is removed."""

    def limit_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    words = ["run", source, folder / "z.parquet", "--bundle", tiny_root / "tiny"]
    ended = subprocess.run(
        [sys.executable, "-m", "convvae_service.pipeline", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
        preexec_fn=limit_files,
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: z.parquet cannot be written: ")
    assert ended.stderr.count("\n") == 1
    assert list(folder.iterdir()) == []
