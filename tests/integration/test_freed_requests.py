"""Requests are freed at the end of their calls, on the whole path of a server, without a collection."""

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from convvae.v1 import vae_pb2 as pb
from convvae_service.bundle import ImageShape
from convvae_service.calls.state import State
from convvae_service.engine.session import Session
from convvae_service.server.lifecycle import Server
from convvae_service.server.process_memory import heap_bytes
from support.local_server import started
from support.tiny_bundle import publish_tiny
from support.waiting import wait_until

MIB = 1 << 20
SIDE = 256
ROWS = 8
CALLS = 12
# Each call sends at least half a MiB: if requests stayed, it would be 6 MiB.
MAX_KEPT_BYTES = 2 * MIB
ENCODE = "/convvae.v1.VaeService/Encode"
CHECK = "/grpc.health.v1.Health/Check"
# In this time a server answers, and frees what the call had.
REST_S = 0.3

# A batch of fewer than 16 rows waits for long, and one of 16 runs at once.
FLAGS = ("--max-batch-rows", "16", "--max-queue-delay-us", "10000000", "--max-pending-bytes", str(256 * MIB))


def rows(count: int = ROWS, **changes: Any) -> bytes:
    """Return a request to encode black images."""
    fields = {
        "data": bytes(count * SIDE * SIDE),
        "count": count,
        "height": SIDE,
        "width": SIDE,
        "channels": 1,
    }
    return pb.EncodeRequest(pixels=pb.Pixels(**{**fields, **changes})).SerializeToString()


@pytest.fixture(scope="module")
def large_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one model of images that are large enough to be seen on the heap."""
    root = tmp_path_factory.mktemp("large-models")
    publish_tiny(root, shape=ImageShape(height=SIDE, width=SIDE, channels=1))
    return root


class Calls:
    """Calls of one kind to a server in this process, with the bytes that stay on the heap after them."""

    def __init__(self, server: Server, channel: grpc.Channel) -> None:
        self.server = server
        self.runner = server.parts.runner
        # The asynchronous client leaves requests to the garbage collector.
        self._make: Any = channel.unary_unary

    def begin(self, body: bytes, timeout_s: float = 20.0, method: str = ENCODE) -> Any:
        """Return a call that has begun."""
        return self._make(method).future(body, timeout=timeout_s)

    async def one(self, body: bytes, timeout_s: float = 20.0, method: str = ENCODE) -> str:
        """Make one call, and return its status."""
        call = self.begin(body, timeout_s, method)
        await asyncio.to_thread(wait_until, call.done)
        return str(call.code().name)

    async def cancelled(self, body: bytes) -> str:
        """Make one call, and leave while its rows wait for a batch."""
        call = self.begin(body)
        await asyncio.to_thread(wait_until, lambda: self.server.parts.batcher.queued_rows > 0)
        call.cancel()
        await asyncio.to_thread(wait_until, lambda: self.runner.in_flight == 0)
        return str(call.code().name)

    async def check(self, make: Any, *codes: str) -> None:
        """Make calls one after another, and check their statuses and the bytes that they leave."""
        # Those of the first calls stay: buffers, lists, threads.
        for _ in range(3):
            await make()
        await asyncio.sleep(REST_S)
        before = heap_bytes()
        assert {await make() for _ in range(CALLS)} == set(codes)
        await asyncio.sleep(REST_S)
        assert heap_bytes() - before < MAX_KEPT_BYTES
        assert self.runner.pending.num_bytes == 0


@pytest.fixture(autouse=True)
def _no_garbage_collector() -> Any:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@contextlib.asynccontextmanager
async def calls_to(root: Path, front: str, *flags: str) -> AsyncIterator[Calls]:
    """Start a server in this process."""
    async with started(root, "--front", front, *FLAGS, *flags) as (server, target):
        with grpc.insecure_channel(target) as channel:
            yield Calls(server, channel)


@pytest.fixture(autouse=True)
def _no_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convvae_service.server.memory.gc.collect", lambda: 0)


async def test_requests_that_are_answered_or_refused(large_root: Path, front: str) -> None:
    """Before they are parsed, while they are parsed, for their model, their shape or their files."""
    no_model = pb.EncodeRequest(model=pb.ModelRef(name="no"), pixels=pb.Pixels(data=bytes(MIB)))
    bad_file = pb.EncodeRequest(files=[bytes(MIB)])
    async with calls_to(large_root, front) as calls:
        for body, code in (
            (rows(16), "OK"),
            (b"\xff" * MIB, "INVALID_ARGUMENT"),
            (rows(height=SIDE + 1), "INVALID_ARGUMENT"),
            (no_model.SerializeToString(), "NOT_FOUND"),
            (bad_file.SerializeToString(), "INVALID_ARGUMENT"),
        ):
            await calls.check(partial(calls.one, body), code)


async def test_requests_that_the_servicer_of_health_never_sees(large_root: Path, front: str) -> None:
    """A name of health that is too long is refused, and nothing of it stays."""
    async with calls_to(large_root, front) as calls:
        await calls.check(
            partial(calls.one, b"\x0a\x80\x80\x40" + bytes(MIB), method=CHECK), "INVALID_ARGUMENT"
        )


async def test_requests_that_wait(large_root: Path, front: str) -> None:
    """Until their deadlines, or until their callers leave."""
    async with calls_to(large_root, front) as calls:
        await calls.check(partial(calls.one, rows(), timeout_s=0.1), "DEADLINE_EXCEEDED")
        await calls.check(partial(calls.cancelled, rows()), "CANCELLED")


async def test_requests_that_are_not_admitted(large_root: Path, front: str) -> None:
    """While the account is full, and while the server stops."""
    async with calls_to(large_root, front) as calls:
        held = calls.runner.pending.hold()

        async def to_full_account() -> str:
            held.add(240 * MIB)
            try:
                return await calls.one(rows())
            finally:
                held.keep(0)

        await calls.check(to_full_account, "RESOURCE_EXHAUSTED")
        calls.runner.state = State.STOPPING
        await calls.check(partial(calls.one, rows()), "UNAVAILABLE")
        calls.runner.state = State.SERVING


async def test_requests_of_a_batch_that_fails(
    large_root: Path, front: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch and its calls, which then run alone."""

    def fail(*_: object) -> None:
        raise RuntimeError("no memory")

    async with calls_to(large_root, front) as calls:
        monkeypatch.setattr(Session, "run", fail)
        monkeypatch.setattr("convvae_service.calls.runner._log.error", lambda *_, **__: None)
        await calls.check(partial(calls.one, rows(16)), "INTERNAL")


async def test_requests_that_a_drain_ends(large_root: Path, front: str) -> None:
    """Calls that wait when the grace is over are ended, and free their rows."""
    async with calls_to(large_root, front, "--max-batch-rows", "128") as calls:
        assert await calls.one(rows(128)) == "OK"
        await asyncio.sleep(REST_S)
        before = heap_bytes()
        waiting = [calls.begin(rows()) for _ in range(CALLS)]
        await asyncio.to_thread(wait_until, lambda: calls.server.parts.batcher.queued_rows == CALLS * ROWS)
        await calls.server.drain(delay_s=0, grace_s=0)
        await asyncio.to_thread(wait_until, lambda: all(call.done() for call in waiting))
        assert {call.code() for call in waiting} <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
        await asyncio.sleep(REST_S)
        assert heap_bytes() - before < MAX_KEPT_BYTES
        assert calls.runner.pending.num_bytes == 0
