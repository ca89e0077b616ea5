import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from convvae_service.observability.log_writer import LogWriter
from support.waiting import wait_until


@contextmanager
def writer_to(fd: int, encoding: str = "utf-8") -> Iterator[LogWriter]:
    writer = LogWriter(fd, encoding=encoding, dropped_line=lambda count: f"dropped {count}\n")
    yield writer
    writer.close()


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    reader, fd = os.pipe()
    yield reader, fd
    for end in (reader, fd):
        with suppress(OSError):
            os.close(end)


def read_lines(reader: int, count: int) -> list[str]:
    """Return the first `count` lines of a pipe."""
    data = b""
    while data.count(b"\n") < count:
        data += os.read(reader, 1 << 20)
    return data.decode().splitlines()


def test_lines_keep_their_order(tmp_path: Path) -> None:
    """Each thread's lines stay in order and whole, and a flush returns when they are in the file."""
    with (tmp_path / "log").open("wb") as file, writer_to(file.fileno()) as writer:

        def write(name: int) -> None:
            for number in range(500):
                writer.write(f"{name} {number}\n")

        threads = [threading.Thread(target=write, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        writer.flush()
        lines = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    for name in range(4):
        assert [int(number) for who, number in lines if who == str(name)] == list(range(500))
    assert writer.dropped == 0


def test_a_burst_is_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines that come together are written together."""
    sizes: list[int] = []
    write = os.write

    def counted(fd: int, data: bytes) -> int:
        sizes.append(len(data))
        return write(fd, data)

    monkeypatch.setattr("convvae_service.observability.log_writer.os.write", counted)
    with (tmp_path / "log").open("wb") as file, writer_to(file.fileno()) as writer:
        for _ in range(100):
            writer.write("x\n")
        writer.flush()
        assert len(sizes) <= 3
        assert sum(sizes) == 200


def test_a_line_needs_no_flush(tmp_path: Path) -> None:
    """The kernel has a line soon after it was written, so a process that is killed loses nothing older."""
    with (tmp_path / "log").open("wb") as file, writer_to(file.fileno()) as writer:
        writer.write("soon\n")
        wait_until(lambda: (tmp_path / "log").read_text() == "soon\n")


def test_a_pipe_that_nobody_reads_delays_nobody() -> None:
    """Lines beyond the bound are dropped at once; when the reader reads again, a line says how many."""
    with pipe() as (reader, fd), writer_to(fd) as writer:
        started_s = time.monotonic()
        for number in range(30_000):
            writer.write(f"{number:099}\n")
        assert time.monotonic() - started_s < 5
        assert writer.dropped > 0
        kept: list[int] = []
        told = 0
        with os.fdopen(reader, closefd=False) as lines:
            while len(kept) + told < 30_000:
                word, _, count = next(lines).rstrip("\n").rpartition(" ")
                if word:
                    told += int(count)
                else:
                    kept.append(int(count))
        assert told == writer.dropped
        assert kept[:10_000] == list(range(10_000))
        assert kept == sorted(set(kept))


def test_a_flush_does_not_wait_for_a_pipe_that_nobody_reads() -> None:
    """A process ends although its log is stuck."""
    with pipe() as (reader, fd), writer_to(fd) as writer:
        writer.write("x" * 100_000 + "\n")
        started_s = time.monotonic()
        writer.flush()
        assert time.monotonic() - started_s < 4
        read_lines(reader, 1)


def test_a_pipe_without_a_reader_loses_lines() -> None:
    """Lines are counted and nothing is raised."""
    with pipe() as (reader, fd), writer_to(fd) as writer:
        os.close(reader)
        for _ in range(3):
            writer.write("a\nb\n")
        writer.flush()
        assert writer.dropped == 6


def test_a_pipe_that_does_not_block_loses_nothing() -> None:
    """A pipe that another process has made non-blocking is waited for."""
    with pipe() as (reader, fd), writer_to(fd) as writer:
        os.set_blocking(fd, False)
        for number in range(2000):
            writer.write(f"{number:099}\n")
        lines = read_lines(reader, 2000)
        assert [int(line) for line in lines] == list(range(2000))
        assert writer.dropped == 0


def test_a_full_disk_loses_lines_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that was cut off is ended, and the next lines are whole again."""
    room = [10]
    write = os.write

    def full(fd: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(28, "No space left on device")
        num_bytes = min(room[0], len(data))
        room[0] -= num_bytes
        return write(fd, data[:num_bytes])

    monkeypatch.setattr("convvae_service.observability.log_writer.os.write", full)
    with (tmp_path / "log").open("wb") as file, writer_to(file.fileno()) as writer:
        writer.write("first\nsecond\nthird\n")
        writer.flush()
        writer.write("lost too\n")
        writer.flush()
        assert writer.dropped == 3
        room[0] = 1000
        writer.write("again\n")
        writer.write("and on\n")
        writer.flush()
        assert (tmp_path / "log").read_text() == "first\nseco\ndropped 3\nagain\nand on\n"
        assert writer.dropped == 3


def test_a_full_device_loses_lines() -> None:
    """The real error of a full disk is no error here."""
    fd = os.open("/dev/full", os.O_WRONLY)
    with writer_to(fd) as writer:
        writer.write("lost\n")
        writer.flush()
        assert writer.dropped == 1
    os.close(fd)


def test_characters_that_the_encoding_lacks_are_escaped(tmp_path: Path) -> None:
    """A log in ASCII has every line, and a lone surrogate is no error."""
    with (tmp_path / "log").open("wb") as file, writer_to(file.fileno(), "ascii") as writer:
        writer.write("Größe \udce9\n")
        writer.flush()
    assert (tmp_path / "log").read_text() == "Gr\\xf6\\xdfe \\udce9\n"


def test_an_error_loses_its_lines_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected error loses the lines of one write, which are counted; the thread goes on."""
    write = os.write
    failures = [MemoryError()]

    def failing(fd: int, data: bytes) -> int:
        if failures:
            raise failures.pop()
        return write(fd, data)

    monkeypatch.setattr("convvae_service.observability.log_writer.os.write", failing)
    with (tmp_path / "log").open("wb") as file, writer_to(file.fileno()) as writer:
        writer.write("lost\nlost too\n")
        started_s = time.monotonic()
        writer.flush()
        assert time.monotonic() - started_s < 0.9
        assert writer.dropped == 2
        writer.write("again\n")
        writer.flush()
        assert (tmp_path / "log").read_text() == "dropped 2\nagain\n"
        assert writer.dropped == 2
