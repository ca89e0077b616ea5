"""The process that decodes WebP files: equal pixels, limits of memory and time, and a new start."""

import io
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convvae_service.bundle import ImageShape, Resize
from convvae_service.images import DecodingThreads, InvalidImage, InvalidImages, decode_file, decode_files
from convvae_service.images.child import DecodingChild
from support.webp_tables import many_tables

SHAPE = ImageShape(height=16, width=12, channels=3)
RESIZE = Resize(filter="lanczos")
MAX_PIXELS = 4_000_000
WAIT_S = 60.0


def webp(side: int, **options: object) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(side).integers(0, 256, (side, side, 4), np.uint8)
    Image.fromarray(pixels).save(buffer, "WEBP", **options)
    return buffer.getvalue()


@pytest.fixture
def child() -> Iterator[DecodingChild]:
    process = DecodingChild()
    yield process
    process.close()


def process_id(child: DecodingChild) -> int:
    assert child._process is not None
    return child._process.pid


def test_the_pixels_are_those_of_this_process(child: DecodingChild) -> None:
    """One process decodes file after file, of every kind."""
    ids = set()
    for data in (webp(100), webp(150, lossless=True), webp(7)):
        pixels = child.decode(data, shape=SHAPE, resize=RESIZE, max_pixels=MAX_PIXELS)
        np.testing.assert_array_equal(pixels, decode_file(data, shape=SHAPE, resize=RESIZE))
        ids.add(process_id(child))
    assert len(ids) == 1


def test_a_refusal_has_its_reason_and_ends_nothing(child: DecodingChild) -> None:
    """The reasons are those of `decode_file`."""
    refusals = {webp(50)[:-9]: "cut short", webp(300): "300x300 is more than the limit of 40000 pixels"}
    for data, reason in refusals.items():
        with pytest.raises(InvalidImage, match=reason):
            child.decode(data, shape=SHAPE, resize=RESIZE, max_pixels=40_000)
    child.decode(webp(50), shape=SHAPE, resize=RESIZE, max_pixels=40_000)


def test_tables_beyond_the_limit_of_memory_are_refused(child: DecodingChild) -> None:
    """A file of 290 KB would take 360 MB for its tables. The next file is decoded."""
    assert not decode_file(many_tables(128, 1024), shape=SHAPE, resize=RESIZE).any()
    with pytest.raises(InvalidImage, match=r"damaged image|memory"):
        child.decode(many_tables(1024, 65_536), shape=SHAPE, resize=RESIZE, max_pixels=MAX_PIXELS)
    peak = Path(f"/proc/{process_id(child)}/status").read_text().split("VmHWM:")[1].split()[0]
    assert int(peak) < 300_000
    child.decode(webp(50), shape=SHAPE, resize=RESIZE, max_pixels=MAX_PIXELS)


def test_a_file_that_takes_too_long_ends_the_process() -> None:
    """The file is refused, and the next one gets another process."""
    child = DecodingChild(timeout_s=0.3)
    data = webp(50)
    child.decode(data, shape=SHAPE, resize=RESIZE, max_pixels=MAX_PIXELS)
    first = process_id(child)
    os.kill(first, signal.SIGSTOP)
    with pytest.raises(InvalidImage, match=r"takes more than 0\.3 s to decode"):
        child.decode(data, shape=SHAPE, resize=RESIZE, max_pixels=MAX_PIXELS)
    child._timeout_s = WAIT_S
    child.decode(data, shape=SHAPE, resize=RESIZE, max_pixels=MAX_PIXELS)
    assert process_id(child) != first
    child.close()


def test_a_process_that_is_killed_is_started_again(child: DecodingChild) -> None:
    """It may be killed between two files, and no file is refused for it."""
    data = webp(50)
    child.decode(data, shape=SHAPE, resize=RESIZE, max_pixels=MAX_PIXELS)
    first = process_id(child)
    os.kill(first, signal.SIGKILL)
    os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)
    child.decode(data, shape=SHAPE, resize=RESIZE, max_pixels=MAX_PIXELS)
    assert process_id(child) != first


@pytest.mark.parametrize(
    "end", [lambda child: os.kill(process_id(child), signal.SIGKILL), DecodingChild.close]
)
def test_a_process_that_ends_refuses_the_file_that_it_decodes(
    child: DecodingChild, end: Callable[[DecodingChild], object]
) -> None:
    """Nobody waits until the file's time is over, and the next file is decoded."""
    data = webp(50)
    child.decode(data, shape=SHAPE, resize=RESIZE, max_pixels=MAX_PIXELS)
    os.kill(process_id(child), signal.SIGSTOP)
    child._timeout_s = WAIT_S
    with ThreadPoolExecutor(1) as pool:
        decoding = pool.submit(child.decode, data, shape=SHAPE, resize=RESIZE, max_pixels=MAX_PIXELS)
        while not child._lock.locked():
            time.sleep(0.001)
        time.sleep(0.1)
        end(child)
        with pytest.raises(InvalidImage, match="its decoder has failed"):
            decoding.result(WAIT_S / 2)
    child.decode(data, shape=SHAPE, resize=RESIZE, max_pixels=MAX_PIXELS)


def test_a_limit_of_the_parent_stays(child: DecodingChild) -> None:
    """Programs under `ulimit -d` cannot raise it. Between two files the process has no lower limit."""
    child.decode(webp(50), shape=SHAPE, resize=RESIZE, max_pixels=MAX_PIXELS)
    number, limits = process_id(child), (1 << 30, 1 << 30)
    resource.prlimit(number, resource.RLIMIT_DATA, limits)
    for _ in range(2):
        child.decode(webp(50), shape=SHAPE, resize=RESIZE, max_pixels=MAX_PIXELS)
        assert process_id(child) == number
        assert resource.prlimit(number, resource.RLIMIT_DATA) == limits


def test_the_process_ends_with_the_pipe(child: DecodingChild) -> None:
    """A parent that is killed leaves no process behind."""
    child.decode(webp(50), shape=SHAPE, resize=RESIZE, max_pixels=MAX_PIXELS)
    process = child._process
    assert process is not None
    process.pipe.close()
    process._process.wait(WAIT_S)


def test_large_webp_files_of_a_call_are_decoded_there() -> None:
    """Other threads of this process run on, since nothing holds Python's lock."""
    steps, done = 0, threading.Event()

    def count() -> None:
        nonlocal steps
        while not done.is_set():
            steps += 1
            time.sleep(0.005)

    with ThreadPoolExecutor(2) as pool:
        threads = DecodingThreads(pool, max_large=1, max_bytes=1)
        files = [webp(1500, lossless=True, method=0), webp(20), webp(400), b"RIFF    WEBP"]
        counting = threading.Thread(target=count)
        counting.start()
        result = decode_files(
            files, shape=SHAPE, resize=RESIZE, max_pixels=MAX_PIXELS, threads=threads, at_once=2
        )
        with pytest.raises(InvalidImages) as caught:
            result.result(WAIT_S)
        done.set()
        counting.join()
        assert list(caught.value.reasons) == [3]
        assert threads.child._process is not None
        threads.child.close()
    assert steps >= 5
