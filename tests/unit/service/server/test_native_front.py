"""The native front over the network, with handlers of the tests behind it."""

import asyncio
import logging
import socket
import threading
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any

import grpc
import pytest

pytest.importorskip("pygrpc_native", reason="the extra [native] is not installed")

from convvae.v1 import vae_pb2 as pb
from convvae.v1 import vae_pb2_grpc
from convvae_service.calls.runner import CallRunner
from convvae_service.calls.running_call import RunningCall
from convvae_service.calls.service import Handler, Service
from convvae_service.calls.state import State
from convvae_service.calls.waiting import wait
from convvae_service.errors import NotFound, StartupError
from convvae_service.observability.call import Call
from convvae_service.observability.metrics import Metrics
from convvae_service.server.credentials import Credentials
from convvae_service.server.native_front import NativeFront
from convvae_service.server.native_port import NativePort
from convvae_service.settings.loader import load_settings
from support.message_limits import LIMITS
from support.raw_http2 import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    connect,
    frame,
    grpc_headers,
    grpc_message,
)
from support.wire import Refusal

SERVICE = pb.DESCRIPTOR.services_by_name["VaeService"]
SAMPLE = pb.SampleRequest(count=1)
METHOD = "convvae.v1.VaeService/Sample"
MANY_BYTES = 8 << 20


class Handlers:
    """Sample answers at once or as the seed says; Score waits until it is released."""

    def __init__(self) -> None:
        self.waiting: list[Future[None]] = []
        self.threads: set[str] = set()
        self.cancelled = threading.Event()
        self.free = threading.Event()
        self.free.set()

    async def sample(self, request: pb.SampleRequest, call: Call) -> pb.SampleResponse:
        del call
        self.free.wait(10)
        self.threads.add(threading.current_thread().name)
        if request.model.name == "none":
            raise NotFound("no model of this name")
        if request.model.name == "broken":
            raise KeyError("a secret of the inside")
        return pb.SampleResponse(images=pb.Pixels(data=bytes(MANY_BYTES if request.count > 1 else 1)))

    async def score(self, request: pb.ScoreRequest, call: Call) -> pb.ScoreResponse:
        del request, call
        released: Future[None] = Future()
        self.waiting.append(released)
        try:
            await wait(released)
        except BaseException:
            self.cancelled.set()
            raise
        return pb.ScoreResponse(elbo=[1.0])

    async def release(self, count: int) -> None:
        """Answer `count` calls of Score, from this thread, when they have come."""
        await until(lambda: len(self.waiting) >= count)
        for released in self.waiting[:count]:
            released.set_result(None)


@asynccontextmanager
async def serving(
    handlers: Handlers, *flags: str, grace_s: float = 5.0
) -> AsyncIterator[tuple[str, Any, CallRunner, NativeFront]]:
    """Serve the handlers on the native front; yield its address, a stub, the runner and the front."""
    runner = CallRunner(metrics=Metrics(), max_call_s=60, state=State.SERVING)
    settings = load_settings(["--models", "unused", "--address", "127.0.0.1:0", *flags])
    front = NativeFront(settings, runner, Credentials(settings))
    calls: dict[str, Handler] = {"Sample": handlers.sample, "Score": handlers.score}
    front.add_service(Service(descriptor=SERVICE, limits=LIMITS, calls=calls))
    target = front.open_addresses()[0]
    await front.start()
    options = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    try:
        async with grpc.aio.insecure_channel(target, options=options) as channel:
            yield target, vae_pb2_grpc.VaeServiceStub(channel), runner, front
    finally:
        await front.stop(grace_s)


async def refused(call: Any) -> Refusal:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return Refusal(caught.value)


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - nothing signals it
            await asyncio.sleep(0.01)


async def test_replies_and_refusals_have_the_id_of_the_call() -> None:
    """They carry the caller's id, and an error its details."""
    async with serving(Handlers()) as (_, stub, _, _):
        metadata = (("x-request-id", "mine-1"),)
        call = stub.Sample(SAMPLE, timeout=10, metadata=metadata)
        assert (await call).images.data == b"\0"
        assert dict(await call.trailing_metadata())["x-request-id"] == "mine-1"
        request = pb.SampleRequest(model=pb.ModelRef(name="none"))
        refusal = await refused(stub.Sample(request, timeout=10, metadata=metadata))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
    assert refusal.metadata["x-request-id"] == "mine-1"


async def test_a_fault_of_the_service_is_kept_from_the_caller(caplog: pytest.LogCaptureFixture) -> None:
    """The caller sees INTERNAL and an id; the thread that reads goes on."""
    async with serving(Handlers()) as (_, stub, _, _):
        with caplog.at_level(logging.ERROR):
            request = pb.SampleRequest(model=pb.ModelRef(name="broken"))
            refusal = await refused(stub.Sample(request, timeout=10))
        assert refusal.code is grpc.StatusCode.INTERNAL
        assert refusal.message == f"internal error, id {refusal.metadata['x-request-id']}"
        await stub.Sample(SAMPLE, timeout=10)


async def test_a_call_that_cannot_be_started_ends(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Even a fault of the front itself is answered, logged, and no end of the reading thread."""
    async with serving(Handlers()) as (_, stub, runner, _):
        with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
            patch.setattr(runner, "begin", lambda *_: 1 / 0)
            refusal = await refused(stub.Sample(SAMPLE, timeout=10))
        assert (refusal.code, refusal.message) == (grpc.StatusCode.INTERNAL, "internal error")
        assert "a call could not be started" in caplog.text
        await stub.Sample(SAMPLE, timeout=10)


async def test_a_call_that_cannot_be_abandoned_leaves_the_thread_that_reads(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The fault is logged, and the calls that come later are answered."""
    handlers = Handlers()
    async with serving(handlers) as (_, stub, _, front):
        call = stub.Score(pb.ScoreRequest(), timeout=10)
        await until(lambda: handlers.waiting)
        with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
            patch.setattr(RunningCall, "abandon", lambda _: 1 / 0)
            call.cancel()
            await until(lambda: "a call could not be abandoned" in caplog.text)
        await stub.Sample(SAMPLE, timeout=10)
        assert front.busy_since_s is None
        await handlers.release(1)


async def test_a_burst_that_cannot_be_taken_leaves_the_thread_that_reads(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever fails is logged, and the calls that come later are answered."""
    async with serving(Handlers()) as (_, stub, _, front):
        (port,) = ports_of(front)
        with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
            patch.setattr(port, "_take_all", lambda _: 1 / 0)
            lost = stub.Sample(SAMPLE, timeout=10)
            lost.add_done_callback(lambda _: None)
            await until(lambda: "calls that arrived together could not be started" in caplog.text)
        lost.cancel()
        await stub.Sample(SAMPLE, timeout=10)


def test_threads_that_cannot_be_started_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever keeps the listener from opening, the server says so and does not start."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no more threads")

    monkeypatch.setattr("convvae_service.server.native_front.NativeGrpcFront", fail)
    settings = load_settings(["--models", "unused", "--address", "127.0.0.1:0"])

    async def open_addresses() -> None:
        runner = CallRunner(metrics=Metrics(), max_call_s=60)
        NativeFront(settings, runner, Credentials(settings)).open_addresses()

    with pytest.raises(StartupError, match=r"^address 127\.0\.0\.1:0 cannot be used: no more threads; "):
        asyncio.run(open_addresses())


async def test_more_callers_than_max_connections_reach_the_front_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each has a connection there; its limit on connections would refuse the last of them."""
    monkeypatch.setattr("convvae_service.server.connections.connection_limit", lambda _: 2)
    async with serving(Handlers()) as (target, _, _, _), AsyncExitStack() as stack:
        for _ in range(5):
            options = [("grpc.use_local_subchannel_pool", 1)]
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(target, options=options))
            stub = vae_pb2_grpc.VaeServiceStub(channel)
            refusal = await refused(stub.ListModels(pb.ListModelsRequest(), timeout=10))
            assert refusal.code is grpc.StatusCode.UNIMPLEMENTED


async def test_a_call_that_blocks_the_thread_that_reads_shows() -> None:
    """The watchdog sees since when; a front that waits for calls is not busy."""
    handlers = Handlers()
    async with serving(handlers) as (_, stub, _, front):
        assert front.busy_since_s is None
        handlers.free.clear()
        call = stub.Sample(SAMPLE, timeout=10)
        # The call is sent when its loop runs.
        await until(lambda: front.busy_since_s is not None or call.done())
        assert not call.done()
        handlers.free.set()
        await call
        await until(lambda: front.busy_since_s is None)


async def test_calls_wait_without_the_thread_that_reads() -> None:
    """Many calls wait at the same time, and each is answered from the thread that has its result."""
    handlers = Handlers()
    async with serving(handlers) as (_, stub, runner, _):
        calls = [stub.Score(pb.ScoreRequest(), timeout=10) for _ in range(40)]
        await until(lambda: len(handlers.waiting) == 40)
        assert runner.in_flight == 40
        await stub.Sample(SAMPLE, timeout=10)
        assert handlers.threads == {"calls"}
        await handlers.release(40)
        assert [list((await call).elbo) for call in calls] == [[1.0]] * 40
        assert runner.in_flight == 0


@pytest.mark.parametrize("how", ["cancelled", "expired", "disconnected"])
async def test_a_caller_that_leaves_ends_its_call(how: str) -> None:
    """A cancellation, a deadline and a lost connection reach the handler, and nothing is left behind."""
    handlers = Handlers()
    async with serving(handlers) as (target, stub, runner, front):
        if how == "disconnected":
            with connect(target) as connected:
                headers = grpc_headers("convvae.v1.VaeService/Score")
                body = frame(DATA, END_STREAM, 1, grpc_message(b""))
                connected.sendall(frame(HEADERS, END_HEADERS, 1, headers) + body)
                await until(lambda: handlers.waiting)
        else:
            call = stub.Score(pb.ScoreRequest(), timeout=0.2 if how == "expired" else None)
            if how == "cancelled":
                # The call is sent when its loop runs.
                asyncio.get_running_loop().call_later(0.2, call.cancel)
            with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
                await call
        assert await asyncio.to_thread(handlers.cancelled.wait, 10)
        await until(lambda: runner.in_flight == 0)
        await until(lambda: not any(port._running for port in ports_of(front)))


@pytest.mark.parametrize(("timeout_s", "code"), [(10, "CANCELLED"), (0.2, "DEADLINE_EXCEEDED")])
async def test_a_caller_that_has_left_before_its_call_is_read(timeout_s: float, code: str) -> None:
    """Its call is not run, and is counted as what it was."""
    handlers = Handlers()
    async with serving(handlers) as (_, stub, runner, front):
        handlers.free.clear()
        first = stub.Sample(SAMPLE, timeout=10)
        await until(lambda: front.busy_since_s is not None or first.done())
        call = stub.Score(pb.ScoreRequest(), timeout=timeout_s)
        await asyncio.sleep(0.3)
        call.cancel()
        await asyncio.sleep(0.3)
        handlers.free.set()
        await first
        await stub.Sample(SAMPLE, timeout=10)
        count = runner.metrics.registry.get_sample_value
        assert count("convvae_calls_total", {"method": "Score", "code": code}) == 1
        assert runner.in_flight == 0
    assert not handlers.waiting


async def test_a_call_that_has_expired_on_arrival_is_not_run() -> None:
    """It is counted, and the handler never sees it."""
    handlers = Handlers()
    async with serving(handlers) as (target, _, runner, _):
        with connect(target) as connected:
            headers = grpc_headers(METHOD, {"grpc-timeout": "1n"})
            body = frame(DATA, END_STREAM, 1, grpc_message(SAMPLE.SerializeToString()))
            connected.sendall(frame(HEADERS, END_HEADERS, 1, headers) + body)
            await until(lambda: runner.last_arrival_s > 0)
    assert handlers.threads == set()


async def test_what_is_too_large_is_refused_as_grpc_does() -> None:
    """RESOURCE_EXHAUSTED without a delay, for messages and for metadata, packed or not."""
    async with serving(Handlers(), "--max-message-bytes", "100000", "--max-metadata-bytes", "4096") as (
        _,
        stub,
        _,
        _,
    ):
        large = pb.SampleRequest(model=pb.ModelRef(name="x" * 200_001))
        for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
            refusal = await refused(stub.Sample(large, timeout=10, compression=compression))
            assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert refusal.message == "received a message of 200009 bytes: the maximum is 125000"
            assert refusal.retry_delay_s is None
        for _ in range(3):
            refusal = await refused(stub.Sample(SAMPLE, timeout=10, metadata=(("note", "x" * 4000),)))
            assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "of about 46" in refusal.message
        await stub.Sample(SAMPLE, timeout=10, metadata=(("note", "x" * 3000),))


async def test_tokens_are_needed(tmp_path: Path) -> None:
    """A call without one is refused before its handler runs, with an id."""
    tokens = tmp_path / "tokens"
    tokens.write_text("secret\n")
    handlers = Handlers()
    async with serving(handlers, "--token-file", str(tokens)) as (_, stub, _, _):
        refusal = await refused(stub.Sample(SAMPLE, timeout=10))
        assert refusal.code is grpc.StatusCode.UNAUTHENTICATED
        assert refusal.metadata["x-request-id"]
        assert handlers.threads == set()
        await stub.Sample(SAMPLE, timeout=10, metadata=(("authorization", "Bearer secret"),))


async def test_a_stop_waits_for_calls_and_for_replies_that_are_read_slowly() -> None:
    """A call in flight is answered, and a reply under way arrives whole."""
    handlers = Handlers()
    async with serving(handlers) as (target, stub, runner, front):
        score = stub.Score(pb.ScoreRequest(), timeout=10)
        await until(lambda: handlers.waiting)
        with connect(target) as connected:
            body = frame(DATA, END_STREAM, 1, grpc_message(pb.SampleRequest(count=2).SerializeToString()))
            connected.sendall(frame(HEADERS, END_HEADERS, 1, grpc_headers(METHOD)) + body)
            await until(lambda: handlers.threads)
            runner.state = State.STOPPING
            stopping = asyncio.ensure_future(front.stop(5))
            await asyncio.sleep(0.1)
            assert not stopping.done()
            refusal = await refused(stub.Sample(SAMPLE, timeout=10))
            assert refusal.code is grpc.StatusCode.UNAVAILABLE
            await handlers.release(1)
            assert list((await score).elbo) == [1.0]
            await asyncio.sleep(0.1)
            assert not stopping.done()
            received = await asyncio.to_thread(read_reply, connected)
            assert received > MANY_BYTES
            await stopping


async def test_a_stop_does_not_wait_beyond_its_grace() -> None:
    """A call that takes longer is abandoned: its caller sees UNAVAILABLE."""
    handlers = Handlers()
    async with serving(handlers) as (_, stub, runner, front):
        score = stub.Score(pb.ScoreRequest(), timeout=10)
        await until(lambda: handlers.waiting)
        await front.stop(0.2)
        assert (await refused(score)).code is grpc.StatusCode.UNAVAILABLE
        assert handlers.cancelled.is_set()
        assert runner.in_flight == 0
        await front.stop(None)


async def test_other_methods_go_to_grpcio_and_no_file_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown method is UNIMPLEMENTED by the front behind, whose socket has no file and ends with it."""
    number = token_hex(16)
    monkeypatch.setattr("convvae_service.server.native_front.secrets.token_hex", lambda _: number)
    async with serving(Handlers()) as (_, stub, _, _):
        refusal = await refused(stub.ListModels(pb.ListModelsRequest(), timeout=10))
        assert refusal.code is grpc.StatusCode.UNIMPLEMENTED
        assert f"@convvae-{number}" in open_sockets()
    assert number not in open_sockets()


def open_sockets() -> str:
    return Path("/proc/net/unix").read_text()


def read_reply(connected: socket.socket) -> int:
    """Read until the server ends stream 1, giving it room to send, and return the number of bytes."""
    connected.sendall(
        frame(8, 0, 0, (1 << 30).to_bytes(4, "big")) + frame(8, 0, 1, (1 << 30).to_bytes(4, "big"))
    )
    received = bytearray()
    while not ends_stream(received):
        data = connected.recv(1 << 20)
        assert data, "the connection ended before the reply"
        received += data
    return len(received)


def ends_stream(received: bytearray) -> bool:
    at = 0
    while at + 9 <= len(received):
        kind, flags = received[at + 3], received[at + 4]
        if kind == HEADERS and flags & END_STREAM:
            return True
        at += 9 + int.from_bytes(received[at : at + 3], "big")
    return False


def ports_of(front: NativeFront) -> list[NativePort]:
    return front._ports
