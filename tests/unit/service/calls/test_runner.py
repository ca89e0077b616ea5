import logging
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import Any

import grpc
import pytest

from convvae.v1 import vae_pb2 as pb
from convvae.v1 import vae_pb2_grpc
from convvae_service.batching.pending_bytes import PendingBytes
from convvae_service.calls.runner import CallRunner
from convvae_service.calls.running_call import CallerLeft
from convvae_service.calls.service import Service
from convvae_service.calls.state import State
from convvae_service.calls.waiting import wait
from convvae_service.errors import DeadlineExceeded, InvalidInput, NotFound, Violation
from convvae_service.observability.call import Call
from convvae_service.observability.metrics import Metrics
from convvae_service.server.credentials import Credentials
from convvae_service.server.grpc_front import GrpcFront
from convvae_service.settings.loader import load_settings
from support.message_limits import LIMITS
from support.wire import Refusal

Handle = Callable[[pb.SampleRequest, Call], Coroutine[Any, Any, pb.SampleResponse]]


async def call(
    handle: Handle, *, runner: CallRunner | None = None, timeout_s: float = 5.0, request_id: str = "id-1"
) -> tuple[pb.SampleResponse | Refusal, CallRunner]:
    """Serve one call by `handle` behind the front of grpcio, and return how it ended."""
    runner = runner or CallRunner(metrics=Metrics(), max_call_s=60, state=State.SERVING)
    settings = load_settings(["--models", "unused", "--address", "127.0.0.1:0"])
    front = GrpcFront(settings, runner, Credentials(settings))
    descriptor = pb.DESCRIPTOR.services_by_name["VaeService"]
    front.add_service(Service(descriptor=descriptor, limits=LIMITS, calls={"Sample": handle}))
    (target,) = front.open_addresses()
    await front.start()
    try:
        async with grpc.aio.insecure_channel(target) as channel:
            stub = vae_pb2_grpc.VaeServiceStub(channel)
            metadata = (("x-request-id", request_id),)
            try:
                reply: pb.SampleResponse = await stub.Sample(
                    pb.SampleRequest(), timeout=timeout_s, metadata=metadata
                )
            except grpc.aio.AioRpcError as error:
                return Refusal(error), runner
            return reply, runner
    finally:
        await front.stop(5)


def counted(runner: CallRunner, code: str) -> float:
    return float(runner.metrics.calls.labels("Sample", code)._value.get())


async def test_a_fault_of_the_service_is_kept_from_the_caller(caplog: pytest.LogCaptureFixture) -> None:
    """The caller sees INTERNAL with an id; the exception's text stands in the log, under that id, alone."""

    async def fail(request: pb.SampleRequest, call: Call) -> pb.SampleResponse:
        raise KeyError("a secret of the inside")

    with caplog.at_level(logging.ERROR):
        refusal, runner = await call(fail)
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.message) == (grpc.StatusCode.INTERNAL, "internal error, id id-1")
    assert "secret" not in str(refusal.metadata)
    (record,) = [record for record in caplog.records if record.message == "internal error"]
    assert record.facts["request_id"] == "id-1"  # type: ignore[attr-defined]
    assert "a secret of the inside" in caplog.text
    assert counted(runner, "INTERNAL") == 1
    assert runner.in_flight == 0


async def test_a_cancelled_handler_is_not_swallowed() -> None:
    """At the caller's deadline the handler is ended, and the call is counted as expired."""
    seen: list[str] = []

    async def wait_long(request: pb.SampleRequest, call: Call) -> pb.SampleResponse:
        try:
            return await wait(Future[pb.SampleResponse]())
        except CallerLeft:
            seen.append("ended")
            raise

    refusal, runner = await call(wait_long, timeout_s=0.5)
    assert isinstance(refusal, Refusal)
    assert refusal.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert seen == ["ended"]
    assert counted(runner, "DEADLINE_EXCEEDED") == 1
    assert runner.in_flight == 0


async def test_the_server_limits_a_call() -> None:
    """A caller without a deadline meets the server's own, in the server's words."""

    async def wait_long(request: pb.SampleRequest, call: Call) -> pb.SampleResponse:
        return await wait(Future[pb.SampleResponse]())

    refusal, _ = await call(
        wait_long, runner=CallRunner(metrics=Metrics(), max_call_s=0.5, state=State.SERVING)
    )
    assert isinstance(refusal, Refusal)
    assert refusal.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert refusal.message == "the call took longer than the server's limit of 0.5 s"


async def test_no_call_is_taken_while_the_server_starts() -> None:
    """Before it is ready a server answers UNAVAILABLE, with what to do."""

    async def answer(request: pb.SampleRequest, call: Call) -> pb.SampleResponse:
        return pb.SampleResponse(seed=1)

    refusal, runner = await call(answer, runner=CallRunner(metrics=Metrics(), max_call_s=60))
    assert isinstance(refusal, Refusal)
    assert refusal.code is grpc.StatusCode.UNAVAILABLE
    assert refusal.message == "the server is starting: try again, or another server"
    runner.state = State.SERVING
    reply, _ = await call(answer, runner=runner)
    assert isinstance(reply, pb.SampleResponse)
    assert reply.seed == 1


@pytest.mark.parametrize("request_id", ["", "with space", "x" * 129])
async def test_an_id_that_no_log_should_hold_is_replaced(request_id: str) -> None:
    """Ids of the caller are taken only when they are short and printable."""
    ids: list[str] = []

    async def answer(request: pb.SampleRequest, call: Call) -> pb.SampleResponse:
        ids.append(call.request_id)
        return pb.SampleResponse()

    await call(answer, request_id=request_id)
    assert len(ids[0]) == 16


def test_an_answer_is_counted_before_it_goes_out() -> None:
    """A caller that has its answer, good or bad, finds the call counted and no longer in flight."""
    runner = CallRunner(metrics=Metrics(), max_call_s=60, state=State.SERVING)
    replies: list[Any] = []

    async def answer(request: pb.SampleRequest, call: Call) -> pb.SampleResponse:
        assert runner.in_flight == 1
        return pb.SampleResponse()

    async def refuse(request: pb.SampleRequest, call: Call) -> pb.SampleResponse:
        raise NotFound("no such model")

    async def fail(request: pb.SampleRequest, call: Call) -> pb.SampleResponse:
        raise KeyError

    def check(code: str, reply: Any) -> None:
        assert counted(runner, code) == 1
        assert runner.in_flight == 0
        replies.append(reply)

    for handle, code in ((answer, "OK"), (refuse, "NOT_FOUND"), (fail, "INTERNAL")):
        running = runner.prepare(Call("Sample", "id-1"), handle, pb.SampleRequest(), partial(check, code))
        assert runner.in_flight == 1
        running.start()
    assert replies[0] == pb.SampleResponse()
    assert [reply.code for reply in replies[1:]] == ["NOT_FOUND", "INTERNAL"]


@pytest.mark.parametrize(("num_bytes", "code"), [(100, "RESOURCE_EXHAUSTED"), (101, "INVALID_ARGUMENT")])
def test_a_request_that_never_passes_is_not_told_to_come_again(num_bytes: int, code: str) -> None:
    """A full account refuses with a delay, and a request that is too long is refused for its length."""
    pending = PendingBytes(1000)
    runner = CallRunner(
        metrics=Metrics(), max_call_s=60, pending=pending, max_request_bytes=100, state=State.SERVING
    )
    pending.hold().add(1000)
    replies: list[Any] = []

    async def refuse(request: bytes, call: Call) -> bytes:
        raise InvalidInput([Violation("request", "is too long")])

    runner.prepare(
        Call("Sample", "id-1"), refuse, bytes(num_bytes), replies.append, request_bytes=num_bytes
    ).start()
    assert [reply.code for reply in replies] == [code]
    assert pending.num_bytes == 1000


@pytest.mark.parametrize(
    ("time_left_s", "code"), [(None, "CANCELLED"), (30.0, "CANCELLED"), (0.0, "DEADLINE_EXCEEDED")]
)
def test_an_abandoned_call_is_counted_and_not_answered(time_left_s: float | None, code: str) -> None:
    """A caller that leaves is told from one whose deadline has passed; its version is released either way."""
    runner = CallRunner(metrics=Metrics(), max_call_s=60, state=State.SERVING)
    replies: list[Any] = []
    released: list[str] = []
    future: Future[pb.SampleResponse] = Future()

    async def wait_long(request: pb.SampleRequest, call: Call) -> pb.SampleResponse:
        call.on_end.append(lambda: released.append("version"))
        return await wait(future)

    running = runner.prepare(
        Call("Sample", "id-1"), wait_long, pb.SampleRequest(), replies.append, time_left_s=time_left_s
    )
    running.start()
    running.abandon()
    running.abandon()
    assert counted(runner, code) == 1
    assert (replies, released, runner.in_flight) == ([], ["version"], 0)
    assert future.cancelled()


def test_a_call_may_have_a_shorter_limit_of_its_own() -> None:
    """A handler gives its call a limit; once the call has ended, a limit has no effect."""
    runner = CallRunner(metrics=Metrics(), max_call_s=60, state=State.SERVING)
    replies: SimpleQueue[Any] = SimpleQueue()
    call = Call("Sample", "id-1")

    async def wait_long(request: pb.SampleRequest, call: Call) -> pb.SampleResponse:
        call.limit(0.01, lambda: DeadlineExceeded("the request's own limit"))
        return await wait(Future[pb.SampleResponse]())

    runner.prepare(call, wait_long, pb.SampleRequest(), replies.put).start()
    assert replies.get(timeout=20).message == "the request's own limit"
    call.limit(0.0, lambda: DeadlineExceeded("too late"))
    assert counted(runner, "DEADLINE_EXCEEDED") == 1


def test_a_call_that_is_refused_by_the_front_is_counted_once() -> None:
    """A call without a request or a token is counted and logged like any other, and holds nothing up."""
    runner = CallRunner(metrics=Metrics(), max_call_s=60, state=State.SERVING)
    refusal = runner.refuse(runner.begin("Sample", ()), NotFound("no such model"))
    assert (refusal.code, refusal.message) == ("NOT_FOUND", "no such model")
    assert counted(runner, "NOT_FOUND") == 1
    assert runner.in_flight == 0
    runner.count_expired("Sample")
    assert counted(runner, "DEADLINE_EXCEEDED") == 1


@pytest.mark.parametrize("part", ["metrics", "release"])
async def test_a_fault_at_the_end_of_a_call_costs_no_answer(
    part: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If a call cannot be recorded, or a version not released, the caller has its answer all the same."""

    def refuse(*_: object) -> None:
        raise RuntimeError("no room")

    async def answer(request: pb.SampleRequest, call: Call) -> pb.SampleResponse:
        if part == "release":
            call.on_end.append(refuse)
        return pb.SampleResponse(seed=7)

    runner = CallRunner(metrics=Metrics(), max_call_s=60, state=State.SERVING)
    if part == "metrics":
        monkeypatch.setattr(runner.metrics, "count_call", refuse)
    reply, _ = await call(answer, runner=runner)
    assert isinstance(reply, pb.SampleResponse)
    assert reply.seed == 7
    assert runner.in_flight == 0
    assert "internal error: the end of a call is not recorded in full" in caplog.messages
