"""Runs into a folder of parts that are killed, starved or abandoned, and what --resume makes of them."""

import fcntl
import json
import os
import pty
import random
import resource
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from support.embed_kills import finish, kill_after, parts_on_disk, start
from support.serving import serving
from support.tiny_bundle import publish_tiny
from support.waiting import wait_until

pytestmark = pytest.mark.one_front

ROWS = 400_000
PART_ROWS = 20_000
WAIT_S = 60.0


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """An .npy file that takes some seconds."""
    array = np.random.default_rng(0).integers(0, 256, (ROWS, 8, 6, 1), dtype=np.uint8)
    np.save(tmp_path / "x.npy", array)
    return tmp_path / "x.npy"


def ids_of(result: Path) -> list[str]:
    return list(pq.read_table(result, columns=["id"]).column("id").to_pylist())


@pytest.mark.slow
def test_killed_runs_lose_and_double_nothing(source: Path, tmp_path: Path, tiny_root: Path) -> None:
    """After three kills at random moments, the result is byte by byte that of an undisturbed run."""
    words = ["--bundle", tiny_root / "tiny", "--device", "cpu", "--part-rows", PART_ROWS]
    whole, result = tmp_path / "whole", tmp_path / "z"
    finish([source, whole, *words])
    draw = random.Random(0)
    for _ in range(3):
        delay_s = draw.uniform(0, 0.1)
        kill_after(
            [source, result, *words, "--resume"], result, new_parts=draw.randint(1, 3), delay_s=delay_s
        )
    written = parts_on_disk(result)
    assert 3 <= written < ROWS // PART_ROWS
    summary = finish([source, result, *words, "--resume"])
    assert (summary["rows"], summary["resumed"]) == (ROWS, written * PART_ROWS)
    assert ids_of(result) == [str(row) for row in range(ROWS)]
    parts = sorted(path.name for path in whole.glob("*.parquet"))
    assert sorted(path.name for path in result.iterdir()) == sorted(path.name for path in whole.iterdir())
    for part in parts:
        assert (result / part).read_bytes() == (whole / part).read_bytes()


def test_full_disk_keeps_the_parts(source: Path, tmp_path: Path, tiny_root: Path) -> None:
    """The run ends with code 1 and one line, and goes on when there is room."""
    words = [source, tmp_path / "z", "--bundle", tiny_root / "tiny", "--part-rows", PART_ROWS]

    def limit_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))

    ended = subprocess.run(
        [sys.executable, "-m", "convvae_service.pipeline", "run", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
        preexec_fn=limit_files,
    )
    assert ended.returncode == 1
    assert ended.stderr == (
        "error: part-00000.parquet cannot be written: File too large; no part is complete yet:"
        " --resume starts anew\n"
    )
    assert [path.name for path in (tmp_path / "z").iterdir()] == ["_journal.jsonl"]
    assert finish([*words, "--resume"])["rows"] == ROWS


def test_signal_keeps_the_parts(tmp_path: Path, tiny_root: Path) -> None:
    """The message says how many rows are kept, and two runs never write one result."""
    source = tmp_path / "endless.npy"
    np.lib.format.open_memmap(source, "w+", np.uint8, (50_000_000, 8, 6, 1))  # all holes
    result = tmp_path / "z"
    words = [source, result, "--bundle", tiny_root / "tiny", "--part-rows", PART_ROWS]
    process = start(words)
    try:
        wait_until(lambda: parts_on_disk(result) >= 2)
        other = start([*words, "--resume"])
        _, errors = other.communicate(timeout=WAIT_S)
        assert (other.returncode, errors) == (2, "error: another run is writing z\n")
        process.terminate()
        _, errors = process.communicate(timeout=WAIT_S)
    finally:
        process.kill()
        process.wait()
    kept = parts_on_disk(result)
    assert process.returncode == 143
    assert errors == (
        f"error: stopped by SIGTERM; {kept * PART_ROWS:,} rows in {kept} parts are kept: --resume continues\n"
    )
    # The signal may come after a part has its name, and before its line is in the journal.
    names = sorted(path.name for path in result.iterdir())
    assert names[: kept + 1] == ["_journal.jsonl", *(f"part-{part:05}.parquet" for part in range(kept))]
    assert names[kept + 1 :] in ([], [f"part-{kept:05}.parquet"])


@pytest.mark.parametrize("ignored", [False, True])
def test_closed_terminal(ignored: bool, source: Path, tmp_path: Path, tiny_root: Path) -> None:
    """It stops the run by SIGHUP; where that is ignored, the run goes on without its progress bar."""
    result = tmp_path / "z"
    words = [source, result, "--bundle", tiny_root / "tiny", "--part-rows", PART_ROWS, "--batch-rows", 64]
    master, terminal = pty.openpty()

    def take_terminal() -> None:
        os.setsid()
        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)

    process = subprocess.Popen(
        [sys.executable, "-m", "convvae_service.pipeline", "run", *map(str, words)],
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=terminal,
        text=True,
        env={**os.environ, "TERM": "xterm"},
        preexec_fn=take_terminal,
    )
    os.close(terminal)
    try:
        wait_until(lambda: parts_on_disk(result) >= 1)
        os.close(master)
        assert parts_on_disk(result) < ROWS // PART_ROWS
        out, _ = process.communicate(timeout=WAIT_S)
    finally:
        process.kill()
        process.wait()
    if ignored:
        assert process.returncode == 0
        assert out.startswith(f"{ROWS:,} rows in ")
    else:
        assert process.returncode == 128 + signal.SIGHUP
        assert not (result / "_result.json").exists()
        assert finish([*words, "--resume"])["rows"] == ROWS
    assert ids_of(result) == [str(row) for row in range(ROWS)]


@pytest.mark.parametrize("change", ["grow", "shrink"])
def test_source_that_changes_while_it_is_read_ends_the_run(
    change: str, source: Path, tmp_path: Path, tiny_root: Path
) -> None:
    """One line says so, whether the file grows or shrinks, and the result is not continued."""
    result = tmp_path / "z"
    words = [source, result, "--bundle", tiny_root / "tiny", "--part-rows", PART_ROWS]
    process = start(words)
    try:
        wait_until(lambda: parts_on_disk(result) >= 1)
        if change == "grow":
            with source.open("ab") as file:
                file.write(b"more")
        else:
            os.truncate(source, 30_000)
        _, errors = process.communicate(timeout=WAIT_S)
    finally:
        process.kill()
        process.wait()
    text = "has changed since the run began" if change == "grow" else "is shorter now than when it was opened"
    assert (process.returncode, errors) == (2, f"error: x.npy {text}: start anew with the whole of it\n")
    if change == "shrink":
        return
    os.truncate(source, source.stat().st_size - 4)
    ended = start([*words, "--resume"])
    _, errors = ended.communicate(timeout=WAIT_S)
    assert (ended.returncode, errors) == (
        2,
        "error: x.npy has changed since z was begun: give --force to start anew\n",
    )


@pytest.mark.slow
def test_service_that_is_away_for_ten_seconds_loses_nothing(
    source: Path, tmp_path: Path, tiny_root: Path
) -> None:
    """The run waits for it, and the result has every id once."""
    result = tmp_path / "z"
    with serving(tiny_root) as server:
        words = [source, result, "--target", server.target, "--part-rows", PART_ROWS]
        process = start(words)
        try:
            wait_until(lambda: parts_on_disk(result) >= 1)
            server.process.kill()
            server.process.wait()
            at_kill = parts_on_disk(result)
            time.sleep(10)
            assert process.poll() is None
            assert parts_on_disk(result) <= at_kill + 1
            with serving(tiny_root, "--address", server.target):
                _, errors = process.communicate(timeout=2 * WAIT_S)
        finally:
            process.kill()
            process.wait()
    assert (process.returncode, errors) == (0, "")
    assert ids_of(result) == [str(row) for row in range(ROWS)]


def test_another_encoder_under_the_same_version_ends_the_run(source: Path, tmp_path: Path) -> None:
    """A service that comes back with other models gives no part, and the rest waits for the first encoder."""
    publish_tiny(tmp_path / "models")
    publish_tiny(tmp_path / "others", seed=1)
    result = tmp_path / "z"
    with serving(tmp_path / "models") as server:
        words: list[Any] = [source, result, "--target", server.target, "--part-rows", PART_ROWS]
        process = start(words)
        try:
            wait_until(lambda: parts_on_disk(result) >= 1)
            server.process.kill()
            server.process.wait()
            with serving(tmp_path / "others", "--address", server.target):
                _, errors = process.communicate(timeout=WAIT_S)
                ended = start([*words, "--resume"])
                _, refused = ended.communicate(timeout=WAIT_S)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == 1
    assert errors.startswith("error: the service has changed tiny@1 during the run: its encoder is ")
    assert "are kept: --resume continues" in errors
    assert errors.count("\n") == 1
    assert ended.returncode == 2
    assert refused.startswith("error: z was begun with tiny@1 fp32 (encoder ")
    words = [source, result, "--bundle", tmp_path / "models" / "tiny", "--part-rows", PART_ROWS]
    assert finish([*words, "--resume"])["rows"] == ROWS
    finish([source, tmp_path / "whole", *words[2:]])
    found, whole = (
        pq.read_table(path)["embedding"].combine_chunks().flatten().to_numpy()
        for path in (result, tmp_path / "whole")
    )
    np.testing.assert_allclose(found, whole, atol=1e-6)


def test_version_that_is_unloaded_meanwhile_ends_the_run(source: Path, tmp_path: Path) -> None:
    """The message names the pinned version, and the rest waits for the same version."""
    root, result = tmp_path / "models", tmp_path / "z"
    publish_tiny(root)
    with serving(root, "--watch", "--watch-interval-s", "0.2") as server:
        words: list[Any] = [source, result, "--target", server.target, "--part-rows", PART_ROWS]
        words += ["--batch-rows", 32, "--in-flight", 1]  # slower than the new version is loaded
        process = start(words)
        try:
            wait_until(lambda: parts_on_disk(result) >= 1)
            publish_tiny(root, seed=1)
            _, errors = process.communicate(timeout=WAIT_S)
        finally:
            process.kill()
            process.wait()
        assert process.returncode == 1
        assert errors.startswith("error: the service failed on tiny@1: ")
        assert "are kept: --resume continues" in errors
        assert errors.count("\n") == 1
        ended = start([*words, "--resume"])
        _, errors = ended.communicate(timeout=WAIT_S)
        assert ended.returncode == 2
        assert "z was begun with tiny@1 fp32" in errors
    words = [source, result, "--bundle", root / "tiny" / "1", "--part-rows", PART_ROWS, "--resume"]
    assert finish(words)["rows"] == ROWS
    described = json.loads((result / "_result.json").read_text())
    assert described["metadata"]["convvae.model_version"] == "1"
    assert ids_of(result) == [str(row) for row in range(ROWS)]
