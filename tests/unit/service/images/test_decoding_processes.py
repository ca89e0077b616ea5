"""Image files decoded in processes: equal pixels and errors, processes that die, and a clean end."""

import errno
import io
import mmap
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from convvae_service.bundle import ImageShape, Resize
from convvae_service.images import (
    DecodingProcesses,
    InvalidImage,
    ModelInput,
    TooManyPixels,
    decode_here,
    decoding_processes,
)
from support.fragile_decoder import HUNGRY, POISON, TEARING

INPUT = ModelInput("tiny", ImageShape(height=8, width=6, channels=3), Resize())
MAX_PIXELS = 100_000
WAIT_S = 60.0


def picture(kind: str, value: int, side: int = 20) -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(value).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


FILES = [picture(kind, value) for value, kind in enumerate(["JPEG", "PNG", "WEBP", "JPEG"])]


def decoded(
    processes: DecodingProcesses, files: Sequence[bytes]
) -> tuple[NDArray[np.uint8], dict[int, tuple[type, str]]]:
    """Return pixels, with zeros where there are none, and the errors."""
    pixels = np.zeros((len(files), *INPUT.shape.as_tuple), np.uint8)
    errors = processes(files, pixels, INPUT, MAX_PIXELS)
    pixels[list(errors)] = 0
    return pixels, {index: (type(error), str(error)) for index, error in errors.items()}


def expected(files: Sequence[bytes]) -> NDArray[np.uint8]:
    pixels = np.zeros((len(files), *INPUT.shape.as_tuple), np.uint8)
    for index in decode_here(files, pixels, INPUT, MAX_PIXELS):
        pixels[index] = 0
    return pixels


@pytest.fixture
def processes() -> Iterator[DecodingProcesses]:
    with DecodingProcesses(2, patience_s=0.0) as found:
        found.start()
        yield found


def wait_until_gone(pids: Sequence[int]) -> None:
    end_s = time.monotonic() + WAIT_S
    while alive := [pid for pid in pids if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < end_s, alive
        time.sleep(0.01)


def test_pixels_and_errors_are_those_of_this_process(processes: DecodingProcesses) -> None:
    """Kinds of files, damaged ones and those with too many pixels are mixed; one answer follows another."""
    files = [FILES[0], b"", *FILES[1:], b"no image", picture("PNG", 5, side=400), FILES[0][:-200]]
    for some in (files, files[:2], files * 9, [b""]):
        pixels, errors = decoded(processes, some)
        np.testing.assert_array_equal(pixels, expected(some))
        here = decode_here(some, np.empty((len(some), *INPUT.shape.as_tuple), np.uint8), INPUT, MAX_PIXELS)
        assert errors == {index: (type(error), str(error)) for index, error in here.items()}
    assert decoded(processes, files)[1][6] == (
        TooManyPixels,
        "400x400 is more than the limit of 100000 pixels",
    )


def test_threads_share_the_processes(processes: DecodingProcesses) -> None:
    """More threads than processes decode at the same time, and each gets its own pixels."""
    batches = [[picture("JPEG", 7 * batch + index) for index in range(5)] for batch in range(24)]
    pids = set(processes.pids)
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda batch: decoded(processes, batch)[0], batches))
    np.testing.assert_array_equal(found, [expected(batch) for batch in batches])
    assert set(processes.pids) == pids


def test_the_memory_grows_for_a_large_file_and_is_given_back(processes: DecodingProcesses) -> None:
    """A file of 20 MiB passes through, and the next batch is decoded as before."""
    large = FILES[1] + bytes(20 << 20)
    for _ in range(2):
        np.testing.assert_array_equal(
            decoded(processes, [large, FILES[0]])[0], expected([FILES[1], FILES[0]])
        )
        assert all(process._num_bytes <= 1 << 20 for process in processes._free)
        np.testing.assert_array_equal(decoded(processes, FILES)[0], expected(FILES))


def test_they_start_when_decoding_has_lasted_some_time() -> None:
    """A short run starts none, and until they are ready the calling threads decode."""
    with DecodingProcesses(2, patience_s=0.2) as processes:
        np.testing.assert_array_equal(decoded(processes, FILES)[0], expected(FILES))
        assert processes.pids == []
        time.sleep(0.2)
        end_s = time.monotonic() + WAIT_S
        while not processes._free:
            np.testing.assert_array_equal(decoded(processes, FILES)[0], expected(FILES))
            assert time.monotonic() < end_s
        pids = processes.pids
        assert len(pids) == 2
    wait_until_gone(pids)


def test_one_process_would_help_nobody() -> None:
    """With one CPU, the thread decodes that calls."""
    with DecodingProcesses(1, patience_s=0.0) as processes:
        processes.start()
        np.testing.assert_array_equal(decoded(processes, FILES)[0], expected(FILES))
        assert processes.pids == []


def test_a_process_that_is_killed_is_replaced_and_no_file_is_lost(processes: DecodingProcesses) -> None:
    """Those that decode are killed again and again."""
    killed, is_over = set(), threading.Event()

    def kill_them() -> None:
        while not is_over.wait(0.1):
            for pid in [process.pid for process in list(processes._busy)]:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)

    batch = FILES * 8
    with ThreadPoolExecutor(4) as pool:
        killing = pool.submit(kill_them)
        try:
            found = [
                each.result(WAIT_S) for each in [pool.submit(decoded, processes, batch) for _ in range(400)]
            ]
        finally:
            is_over.set()
        killing.result(WAIT_S)
    assert killed
    for pixels, errors in found:
        # A file is given up if it was there each time that its process was killed.
        good = [index for index in range(len(batch)) if index not in errors]
        np.testing.assert_array_equal(pixels[good], expected(batch)[good])
        assert {reason for _, reason in errors.values()} <= {"damaged image: its decoder has failed"}
    assert sum(not errors for _, errors in found) > 200


@pytest.fixture
def fragile(monkeypatch: pytest.MonkeyPatch) -> Iterator[DecodingProcesses]:
    tests = str(Path(__file__).parents[3])
    monkeypatch.setattr(decoding_processes, "_PROGRAM", "support.fragile_decoder")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")]))
    with DecodingProcesses(2, patience_s=0.0) as found:
        found.start()
        yield found


@pytest.mark.parametrize("bad", [POISON, TEARING])
def test_a_file_that_ends_its_process_is_an_invalid_image(bad: bytes, fragile: DecodingProcesses) -> None:
    """This process lives on, and the files beside it are decoded, also if an answer has begun."""
    files = [FILES[0], bad, FILES[1], bad]
    pixels, errors = decoded(fragile, files)
    reason = (InvalidImage, "damaged image: its decoder has failed")
    assert errors == {1: reason, 3: reason}
    np.testing.assert_array_equal(pixels[[0, 2]], expected([FILES[0], FILES[1]]))
    np.testing.assert_array_equal(decoded(fragile, FILES)[0], expected(FILES))


def test_a_process_without_memory_leaves_the_files_to_the_calling_thread(fragile: DecodingProcesses) -> None:
    """No image is lost, and the process lives on."""
    pids = set(fragile.pids)
    pixels, errors = decoded(fragile, [FILES[0], HUNGRY, FILES[1]])
    assert errors == {1: (InvalidImage, "not a JPEG, PNG or WebP image")}
    np.testing.assert_array_equal(pixels[[0, 2]], expected([FILES[0], FILES[1]]))
    np.testing.assert_array_equal(decoded(fragile, FILES)[0], expected(FILES))
    assert set(fragile.pids) == pids


def test_without_memory_to_share_the_calling_thread_decodes(
    processes: DecodingProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit of address space or of the size of files ends no run."""

    def refuse(handle: int, num_bytes: int) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    with monkeypatch.context() as patch:
        patch.setattr(mmap, "mmap", refuse)
        for _ in range(2):
            np.testing.assert_array_equal(decoded(processes, FILES)[0], expected(FILES))
    np.testing.assert_array_equal(decoded(processes, FILES)[0], expected(FILES))
    assert all(process._num_bytes for process in processes._free[-1:])


@pytest.mark.parametrize("lacking", ["program", "handles"])
def test_what_the_system_refuses_at_the_start_costs_no_image(
    lacking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No process may start, or no file be opened: the calling threads decode, and nobody waits."""
    if lacking == "program":
        monkeypatch.setattr(sys, "executable", "/no/such/python")
    with DecodingProcesses(2, patience_s=0.0) as processes:
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        if lacking == "handles":
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
        try:
            found = [decoded(processes, FILES)[0] for _ in range(3)]
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        assert processes.pids == []
    np.testing.assert_array_equal(found, [expected(FILES)] * 3)


def test_without_processes_the_calling_threads_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that cannot start costs no image; who asks for a start is told."""
    monkeypatch.setattr(decoding_processes, "_PROGRAM", "convvae_service.no_such_program")
    with DecodingProcesses(2, patience_s=0.0) as processes:
        end_s, tried = time.monotonic() + WAIT_S, set[int]()
        while not tried or processes.pids:
            np.testing.assert_array_equal(decoded(processes, FILES)[0], expected(FILES))
            tried |= set(processes.pids)
            assert time.monotonic() < end_s
        assert 2 <= len(tried) <= 7
    with DecodingProcesses(2) as processes, pytest.raises(OSError, match="cannot start"):
        processes.start()


def test_who_waits_when_they_are_closed_gets_an_error(processes: DecodingProcesses) -> None:
    """Nobody waits for a process that is not there any more."""
    pids = processes.pids
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(decoded, processes, FILES) for _ in range(3)]
        end_s = time.monotonic() + WAIT_S
        while len(processes._busy) < 2:
            assert time.monotonic() < end_s
        processes.close()
        for each in waiting:
            with pytest.raises(OSError, match="are closed"):
                each.result(WAIT_S)
    wait_until_gone(pids)


def test_they_end_with_a_parent_that_is_killed() -> None:
    """SIGKILL of a run leaves no process behind."""
    program = (
        "import time; from convvae_service.images import DecodingProcesses;"
        " processes = DecodingProcesses(2); processes.start(); print(*processes.pids, flush=True);"
        " time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
    finally:
        parent.kill()
        parent.communicate()
    wait_until_gone(pids)
