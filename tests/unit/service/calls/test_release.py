"""Calls that have ended free their memory at once, without the garbage collector."""

import gc
import io
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
import pytest
from PIL import Image

from convvae_service.api.image_rows import ImageRows
from convvae_service.batching.batcher import Batcher
from convvae_service.bundle import ImageShape, Resize
from convvae_service.calls.running_call import CallerLeft
from convvae_service.calls.status import Refusal
from convvae_service.calls.waiting import wait
from convvae_service.engine.stages import Rows, Stage
from convvae_service.errors import DeadlineExceeded, InvalidInput, NotFound, Violation
from convvae_service.images import DecodingThreads
from convvae_service.observability.call import Call
from support.noted_calls import Kept, Mailbox, Reply, Request
from support.waiting import TIMEOUT_S, wait_until


@pytest.fixture(autouse=True)
def _no_garbage_collector() -> Iterator[None]:
    """Turn the collector off, and the log: pytest keeps the exceptions in it."""
    gc.collect()
    gc.disable()
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
    gc.enable()


class Files(ImageRows):
    """Files that can be referenced weakly."""


@pytest.fixture
def kept() -> Iterator[Kept]:
    batcher = Batcher(lanes=1, max_batch_rows=16, max_queued_rows=1000)
    with closing(batcher):
        yield Kept(batcher)


def test_an_answered_call(kept: Kept) -> None:
    """The request, its rows, the results, the reply and the way back are freed."""
    ended = threading.Event()

    async def handle(request: Request, call: Call) -> Reply:
        (results,) = await kept.run(kept.stage, request)
        reply: Reply = kept.note(Reply(results))
        return reply

    kept.begin(handle, ended)
    assert ended.wait(TIMEOUT_S)
    kept.assert_freed()
    assert kept.answers == [Reply]


@pytest.mark.parametrize("wait_first", [True, False])
def test_a_refused_call(kept: Kept, wait_first: bool) -> None:
    """The error is freed with the frames of its traceback."""
    ended = threading.Event()

    async def handle(request: Request, call: Call) -> Reply:
        if wait_first:
            await kept.run(kept.stage, request)
        raise kept.note(NotFound("no such model"))

    kept.begin(handle, ended)
    assert ended.wait(TIMEOUT_S)
    kept.assert_freed()
    assert kept.answers == [Refusal]


def test_a_call_that_meets_a_fault(kept: Kept) -> None:
    """An exception of the engine, which passes through the batcher to the call, is freed."""
    ended = threading.Event()

    async def handle(request: Request, call: Call) -> Reply:
        await kept.run(kept.broken, request)
        raise AssertionError

    kept.begin(handle, ended)
    assert ended.wait(TIMEOUT_S)
    kept.assert_freed()
    assert kept.answers == [Refusal]


def test_calls_of_a_batch_that_meet_a_fault(kept: Kept) -> None:
    """The exceptions of calls that shared a batch and then ran alone are freed too."""
    blocker, ended = threading.Event(), [threading.Event() for _ in range(2)]

    async def block(request: Request, call: Call) -> Reply:
        await kept.run(kept.gated, request)
        return Reply(np.zeros(1))

    async def handle(request: Request, call: Call) -> Reply:
        request.rows = request.rows[:8]
        await kept.run(kept.broken, request)
        raise AssertionError

    kept.begin(block, blocker)
    assert kept.runs.wait(TIMEOUT_S)
    for event in ended:
        kept.begin(handle, event)
    kept.gate.set()
    assert all(event.wait(TIMEOUT_S) for event in (blocker, *ended))
    kept.assert_freed()
    assert kept.answers == [Reply, Refusal, Refusal]


def test_a_fault_that_no_call_waits_for(kept: Kept) -> None:
    """If the caller leaves while its batch runs, and the batch then fails, the exception is freed too."""
    ended = threading.Event()

    def fail_late(rows: Rows) -> Rows:
        kept._wait(rows)
        return kept._fail(rows)

    late = Stage("late", fail_late)

    async def handle(request: Request, call: Call) -> Reply:
        await kept.run(late, request)
        raise AssertionError

    running = kept.begin(handle, ended)()
    assert running is not None
    assert kept.runs.wait(TIMEOUT_S)
    num_before = len(kept.refs)
    running.abandon()
    del running
    kept.gate.set()
    wait_until(lambda: len(kept.refs) > num_before)
    kept.assert_freed()
    assert kept.answers == []


@pytest.mark.parametrize("error", [CallerLeft(), DeadlineExceeded("too slow")])
def test_a_call_that_is_interrupted_while_it_waits(kept: Kept, error: BaseException) -> None:
    """A call that waits in the queue is freed at once; one in a batch, as soon as the batch has run."""
    ended = threading.Event()
    endings: list[BaseException] = [error]
    del error

    async def handle(request: Request, call: Call) -> Reply:
        await kept.run(kept.gated, request)
        return Reply(np.zeros(1))

    first = kept.begin(handle, ended)
    assert kept.runs.wait(TIMEOUT_S)
    num_running = len(kept.refs)
    second = kept.begin(handle, ended)
    kind = type(endings[0])
    for running in (second, first):
        call = running()
        assert call is not None
        if kind is CallerLeft:
            call.abandon()
        else:
            call.interrupt(kept.note(DeadlineExceeded("too slow")))
        del call
    assert not any(found() is not None for found in kept.refs[num_running:])
    kept.gate.set()
    kept.assert_freed()
    assert kept.answers == ([] if kind is CallerLeft else [Refusal, Refusal])


def test_a_call_that_is_over_its_time(kept: Kept) -> None:
    """The server's own limit frees all that the call has, and the thread of the limits keeps nothing."""
    ended = threading.Event()

    async def handle(request: Request, call: Call) -> Reply:
        call.limit(0.01, lambda: kept.note(DeadlineExceeded("too slow")))
        await kept.run(kept.gated, request)
        raise AssertionError

    kept.begin(handle, ended)
    assert ended.wait(TIMEOUT_S)
    kept.gate.set()
    kept.assert_freed()
    assert kept.answers == [Refusal]


def test_a_call_that_is_abandoned_before_it_starts(kept: Kept) -> None:
    """Its request is freed when it is started in vain."""

    async def handle(request: Request, call: Call) -> Reply:
        raise AssertionError

    mailbox = kept.note(Mailbox(threading.Event(), kept.answers))
    running = kept.runner.prepare(Call("Encode", "id-1"), handle, kept.note(Request()), mailbox.put)
    running.abandon()
    running.start()
    del mailbox, running
    kept.assert_freed()
    assert kept.answers == []


def png() -> bytes:
    """Return a grey image of 8x6 pixels as a file."""
    file = io.BytesIO()
    Image.new("L", (6, 8)).save(file, "png")
    return file.getvalue()


@pytest.mark.parametrize("good", [True, False])
def test_a_call_with_files(kept: Kept, good: bool) -> None:
    """The files of a request are freed with their pixels, or with the error that names the bad ones."""
    ended = threading.Event()

    async def handle(request: Request, call: Call) -> Reply:
        shape = ImageShape(height=8, width=6, channels=1)
        files = (png(),) * 3 if good else (png(), b"no image")
        rows = kept.note(Files(pixels=None, files=files, shape=shape))
        try:
            pixels = await rows.decode(resize=Resize(), max_pixels=1000, threads=threads, at_once=2)
        except InvalidInput as error:
            kept.note(error)
            kept.note(error.__context__)
            raise
        return Reply(kept.note(pixels))

    with ThreadPoolExecutor(2) as executor:
        threads = DecodingThreads(executor, max_large=1, max_bytes=1)
        kept.begin(handle, ended)
        assert ended.wait(TIMEOUT_S)
        kept.assert_freed()
    assert kept.answers == [Reply if good else Refusal]


def test_a_call_whose_worker_fails(kept: Kept) -> None:
    """An error that a worker raises is freed, with the call that waited for it."""
    ended = threading.Event()

    def fail() -> None:
        raise kept.note(InvalidInput([Violation("field", "is wrong")]))

    async def handle(request: Request, call: Call) -> Reply:
        await wait(threads.submit(fail))
        raise AssertionError

    with ThreadPoolExecutor(1) as threads:
        kept.begin(handle, ended)
        assert ended.wait(TIMEOUT_S)
        kept.assert_freed()
    assert kept.answers == [Refusal]
