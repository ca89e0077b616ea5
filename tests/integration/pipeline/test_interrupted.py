"""What is left of a `convvae-embed` that does not end by itself: nothing that looks whole."""

import io
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from support.interrupted_imports import interrupted
from support.serving import serving
from support.tar_file import write_tar

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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
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
    """With --force the old file stays until the new one is whole."""
    (folder / "z.parquet").write_bytes(b"old")
    with running(source, folder, "--bundle", tiny_root / "tiny", "--force") as process:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=WAIT_S)
    assert [path.name for path in folder.iterdir()] == ["z.parquet"]
    assert (folder / "z.parquet").read_bytes() == b"old"


# A run in which every read of a file waits for a disk that does not answer.
HANGING = """
import time
from convvae_service.images import folder_source
folder_source.read_file = lambda *_, **__: time.sleep(3600)
from convvae_service.pipeline.__main__ import main
main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_first_signal_ends_a_run_that_waits_for_a_disk(
    number: signal.Signals, tmp_path: Path, folder: Path, tiny_root: Path
) -> None:
    """The unfinished file is removed, and the process ends although its threads wait."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "a.png").touch()
    words = ["run", pictures, folder / "z.parquet", "--bundle", tiny_root / "tiny"]
    command = [sys.executable, "-c", HANGING, *map(str, words)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        deadline_s = time.monotonic() + WAIT_S
        while not list(folder.iterdir()) and time.monotonic() < deadline_s:
            time.sleep(0.02)
        process.send_signal(number)
        _, errors = process.communicate(timeout=WAIT_S)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, errors) == (
        128 + number,
        f"error: stopped by {number.name}, nothing was written\n",
    )
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("module", "number"),
    [("typer", "SIGINT"), ("numpy", "SIGTERM"), ("pyarrow.parquet", "SIGINT"), ("onnxruntime", "SIGHUP")],
)
def test_signal_during_the_imports_is_one_line(
    module: str, number: str, tmp_path: Path, folder: Path, tiny_root: Path
) -> None:
    """Nothing is written, and no traceback."""
    np.save(tmp_path / "x.npy", np.zeros((3, 8, 6), np.uint8))
    words = ["run", tmp_path / "x.npy", folder / "z.parquet", "--bundle", tiny_root / "tiny"]
    ended = interrupted("convvae_service.pipeline", module, signal.Signals[number], *map(str, words))
    assert ended.returncode == 128 + signal.Signals[number]
    assert ended.stderr == f"error: stopped by {number}, nothing was written\n"
    assert list(folder.iterdir()) == []


def test_ignored_hangup_stays_ignored(source: Path, folder: Path, tiny_root: Path) -> None:
    """Under nohup, a closed terminal does not end the run."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with running(source, folder, "--bundle", tiny_root / "tiny") as process:
            process.send_signal(signal.SIGHUP)
            time.sleep(0.3)
            assert process.poll() is None
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=WAIT_S)
            assert process.returncode == 128 + signal.SIGTERM
    finally:
        signal.signal(signal.SIGHUP, before)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("closed", [True, False])
def test_stdout_that_cannot_be_written_is_one_line(
    closed: bool, tmp_path: Path, folder: Path, tiny_root: Path
) -> None:
    """A pipe without a reader, or a full disk, loses the summary. The embeddings are complete."""
    np.save(tmp_path / "x.npy", np.zeros((3, 8, 6), np.uint8))
    words = ["run", tmp_path / "x.npy", folder / "z.parquet", "--bundle", tiny_root / "tiny"]
    reader, writer = os.pipe()
    os.close(reader)
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "convvae_service.pipeline", *map(str, words)],
            stdout=writer if closed else full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
    finally:
        os.close(writer)
        os.close(full)
    reason = "Broken pipe" if closed else "No space left on device"
    assert ended.returncode == 1
    assert ended.stderr == f"error: {folder}/z.parquet is complete, but stdout cannot be written: {reason}\n"
    assert pq.read_metadata(folder / "z.parquet").num_rows == 3


# A run that decodes in processes from the first file on.
IN_PROCESSES = """
from convvae_service.images import DecodingProcesses
DecodingProcesses.__enter__ = lambda self: self.start() or self
from convvae_service.pipeline.__main__ import main
main()
"""


@pytest.mark.parametrize("closed", [(2,), (0, 1, 2)])
def test_closed_standard_streams(closed: Sequence[int], tmp_path: Path, tiny_root: Path) -> None:
    """No file or pipe takes the number of a stream, so that rows are whole and no error is in the output."""

    def close() -> None:
        for number in closed:
            os.close(number)

    def run(source: Path) -> "subprocess.CompletedProcess[str]":
        words = ["run", source, tmp_path / "z.parquet", "--bundle", tiny_root / "tiny", "--threads", 2]
        command = [sys.executable, "-c", IN_PROCESSES, *map(str, words)]
        return subprocess.run(
            command, preexec_fn=close, capture_output=True, text=True, timeout=WAIT_S, check=False
        )

    refused = run(tmp_path / "missing.tar")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert bool(refused.stderr) == (2 not in closed)
    out = io.BytesIO()
    Image.new("L", (90, 90), 7).save(out, "JPEG")
    archive = write_tar(tmp_path / "x.tar", [(f"{row:04}.jpg", out.getvalue()) for row in range(300)])
    ended = run(archive)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("300 rows in " if 1 not in closed else "")
    assert pq.read_table(tmp_path / "z.parquet").num_rows == 300


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
