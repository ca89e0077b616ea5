import gc
import io
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from convvae_service.bundle import ImageShape, Resize
from convvae_service.images import DecodingThreads, InvalidImages, batch_decoding, decode_files
from convvae_service.images.header import LargeFile

SHAPE = ImageShape(height=4, width=6, channels=1)
WAIT_S = 20.0


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (6, 4), value).save(buffer, "PNG")
    return buffer.getvalue()


def decode(
    files: list[bytes], threads: ThreadPoolExecutor, *, at_once: int = 4, max_pixels: int = 100
) -> "Future[NDArray[np.uint8]]":
    return decode_files(
        files,
        shape=SHAPE,
        resize=Resize(),
        max_pixels=max_pixels,
        threads=DecodingThreads(threads, max_large=1, max_bytes=1 << 30),
        at_once=at_once,
    )


class Gate:
    """Stands in for `decode_file`: each call takes a ticket and waits until the gate is open."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.entered = threading.Event()
        self.seen: list[bytes] = []

    def __call__(self, data: bytes, **_: object) -> NDArray[np.uint8]:
        self.seen.append(data)
        self.entered.set()
        assert self.open.wait(WAIT_S)
        return np.zeros(SHAPE.as_tuple, np.uint8)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture
def replace(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return a function that replaces a name of the module."""
    return lambda name, value: monkeypatch.setattr(batch_decoding, name, value)


@pytest.mark.parametrize("at_once", [1, 8])
@pytest.mark.parametrize("turn_s", [0.0, 60.0])
def test_rows_keep_the_order_of_the_files(
    threads: ThreadPoolExecutor, replace: Callable[..., Any], turn_s: float, at_once: int
) -> None:
    """Each row is its file, with one file in a turn or all of them, and in any number of tasks."""
    replace("_TURN_S", turn_s)
    replace("_BYTES_PER_TASK", 1)
    images = decode([png(value) for value in range(200)], threads, at_once=at_once).result(WAIT_S)
    assert images.shape == (200, *SHAPE.as_tuple)
    assert images[:, 0, 0, 0].tolist() == list(range(200))
    assert (images == images[:, :1, :1]).all()


def test_no_files_give_no_rows(threads: ThreadPoolExecutor) -> None:
    """A call without files has its result at once."""
    assert decode([], threads).result(WAIT_S).shape == (0, *SHAPE.as_tuple)


def test_every_bad_file_is_listed(threads: ThreadPoolExecutor) -> None:
    """All bad files are found, with their indices and reasons; the good ones do not hide them."""
    large = io.BytesIO()
    Image.new("L", (20, 20)).save(large, "PNG")
    files = [png(1), b"", png(2), b"no image", large.getvalue()]
    with pytest.raises(InvalidImages) as caught:
        decode(files, threads).result(WAIT_S)
    assert caught.value.reasons == {
        1: "the file is empty",
        3: "not a JPEG, PNG or WebP image",
        4: "20x20 is more than the limit of 100 pixels",
    }
    assert list(caught.value.reasons) == [1, 3, 4]
    assert str(caught.value).startswith("files[1]: the file is empty; files[3]: not a JPEG")


def test_another_error_ends_the_call(threads: ThreadPoolExecutor, replace: Callable[..., Any]) -> None:
    """An error that is not about a file's content reaches the caller, and no further file is decoded."""
    seen = []

    def decode_file(data: bytes, **_: object) -> NDArray[np.uint8]:
        seen.append(data)
        raise MemoryError

    replace("decode_file", decode_file)
    with pytest.raises(MemoryError):
        decode([png(1)] * 100, threads, at_once=1).result(WAIT_S)
    assert len(seen) == 1


def test_a_cancelled_call_decodes_no_further_file(replace: Callable[..., Any]) -> None:
    """After a cancellation the file that is being decoded is the last, and the files are released."""
    gate = Gate()
    replace("decode_file", gate)

    class Files(list[bytes]):
        """A list that a weak reference can follow."""

    files = Files([png(1)] * 50)
    alive = weakref.ref(files)
    with ThreadPoolExecutor(1) as threads:
        result = decode(files, threads)
        del files
        assert gate.entered.wait(WAIT_S)
        assert result.cancel()
        assert result in wait([result], timeout=WAIT_S).done
        gate.open.set()
    with pytest.raises(CancelledError):
        result.result(0)
    assert len(gate.seen) == 1
    gc.collect()
    assert alive() is None


def test_files_of_other_calls_get_between(replace: Callable[..., Any]) -> None:
    """A small call that comes second does not wait for all files of the large one."""
    order: list[bytes] = []
    started, queued = threading.Event(), threading.Event()

    def decode_file(data: bytes, **_: object) -> NDArray[np.uint8]:
        started.set()
        assert queued.wait(WAIT_S)
        order.append(data)
        return np.zeros(SHAPE.as_tuple, np.uint8)

    replace("decode_file", decode_file)
    replace("_TURN_S", 0.0)
    with ThreadPoolExecutor(1) as pool:
        large = decode([b"large"] * 20, pool, at_once=1)
        assert started.wait(WAIT_S)
        small = decode([b"small"], pool, at_once=1)
        queued.set()
        wait([large, small], timeout=WAIT_S)
    assert order.index(b"small") <= 2


@pytest.mark.parametrize(("num_bytes", "expected"), [(10, 1), (1 << 16, 2), (1 << 20, 3)])
def test_small_files_stay_in_one_thread(replace: Callable[..., Any], num_bytes: int, expected: int) -> None:
    """More than one thread works on a call only if there is enough to do, and never more than `at_once`."""
    gate = Gate()
    replace("decode_file", gate)
    with ThreadPoolExecutor(8) as threads:
        result = decode([bytes(num_bytes // 8 + 1)] * 8, threads, at_once=3)
        for _ in range(1000):
            if len(gate.seen) >= expected:
                break
            threading.Event().wait(0.01)
        threading.Event().wait(0.05)
        assert len(gate.seen) == expected
        gate.open.set()
        result.result(WAIT_S)


def test_an_executor_that_is_shut_down_fails_the_call(threads: ThreadPoolExecutor) -> None:
    """The caller does not wait for ever for threads that have ended."""
    threads.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        decode([png(1)], threads).result(WAIT_S)


def test_an_executor_that_drops_its_queue_cancels_the_call(replace: Callable[..., Any]) -> None:
    """A turn that the executor cancels ends the call, since its files are not decoded."""
    gate = Gate()
    replace("decode_file", gate)
    threads = ThreadPoolExecutor(1)
    first = decode([png(1)], threads)
    assert gate.entered.wait(WAIT_S)
    second = decode([png(2)], threads)
    threads.shutdown(wait=False, cancel_futures=True)
    gate.open.set()
    assert first.result(WAIT_S).shape == (1, *SHAPE.as_tuple)
    with pytest.raises(CancelledError):
        second.result(WAIT_S)


def test_a_large_file_is_a_row_like_the_others(threads: ThreadPoolExecutor) -> None:
    """Large files take turns of their own, and the order of the rows stays."""
    large = io.BytesIO()
    Image.new("L", (3000, 2000), 200).save(large, "PNG")
    files = [png(1), large.getvalue(), png(2), large.getvalue(), b"", large.getvalue()[:-1], png(3)]
    with pytest.raises(InvalidImages) as caught:
        decode(files, threads, max_pixels=6_000_000).result(WAIT_S)
    assert caught.value.reasons == {4: "the file is empty", 5: "image file is cut short"}
    images = decode(files[:4], threads, max_pixels=6_000_000).result(WAIT_S)
    assert images[:, 0, 0, 0].tolist() == [1, 200, 2, 200]


def test_small_files_pass_a_large_one(replace: Callable[..., Any]) -> None:
    """A small file is decoded while large files are in work and wait."""
    inside, gate = threading.Event(), threading.Event()

    def decode_file(data: bytes, *, small_only: bool = False, **_: object) -> NDArray[np.uint8]:
        if data == b"large" and small_only:
            raise LargeFile(1)
        if data == b"large":
            inside.set()
            assert gate.wait(WAIT_S)
        return np.zeros(SHAPE.as_tuple, np.uint8)

    replace("decode_file", decode_file)
    with ThreadPoolExecutor(2) as pool:
        threads = DecodingThreads(pool, max_large=1, max_bytes=1)

        def start(file: bytes) -> "Future[NDArray[np.uint8]]":
            return decode_files(
                [file], shape=SHAPE, resize=Resize(), max_pixels=1, threads=threads, at_once=2
            )

        large = [start(b"large") for _ in range(5)]
        assert inside.wait(WAIT_S)
        assert len(start(b"small").result(WAIT_S)) == 1
        assert large[1].cancel()
        gate.set()
        assert [len(large[index].result(WAIT_S)) for index in (0, 2, 3, 4)] == [1] * 4
