"""Files that are read again, from many threads."""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from convvae_service.server.watched_file import WatchedFile

THREADS = 8


def test_a_change_is_read_once_and_seen_by_all_threads(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A thread that asks while another one reads the change waits, and never gets the old value."""
    path = tmp_path / "value"
    path.write_text("old")
    parsed: list[bytes] = []
    ready = threading.Barrier(THREADS)
    reading = threading.Event()

    def parse(contents: tuple[bytes, ...]) -> bytes:
        if parsed:
            # The others ask meanwhile.
            reading.wait(0.2)
        parsed.append(contents[0])
        return contents[0]

    def read(_: int) -> bytes:
        ready.wait(10)
        return file.current()

    file = WatchedFile((path,), parse)
    file.load()
    path.write_text("newer")
    with caplog.at_level(logging.INFO), ThreadPoolExecutor(THREADS) as threads:
        assert list(threads.map(read, range(THREADS))) == [b"newer"] * THREADS
    assert parsed == [b"old", b"newer"]
    assert caplog.messages == ["files read again"]


def test_a_bad_change_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The old value stays until the file is good again."""
    path = tmp_path / "value"
    path.write_text("1")
    file = WatchedFile((path,), lambda contents: int(contents[0]))
    assert file.load() == 1
    path.write_text("bad")
    assert [file.current() for _ in range(3)] == [1, 1, 1]
    path.unlink()
    assert [file.current() for _ in range(3)] == [1, 1, 1]
    assert caplog.messages == ["changed files cannot be used: the old content stays"] * 2
    path.write_text("22")
    assert file.current() == 22
