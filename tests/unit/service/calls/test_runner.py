import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import cast

import grpc
import pytest

from convvae.v1 import vae_pb2 as pb
from convvae.v1 import vae_pb2_grpc
from convvae_service.calls.runner import CallRunner, Context
from convvae_service.errors import NotFound
from convvae_service.observability.call import Call
from convvae_service.observability.metrics import Metrics
from support.wire import Refusal

Handle = Callable[[pb.SampleRequest, Call], Awaitable[pb.SampleResponse]]


async def call(
    handle: Handle, *, runner: CallRunner | None = None, timeout_s: float = 5.0, request_id: str = "id-1"
) -> tuple[pb.SampleResponse | Refusal, CallRunner]:
    """Serve one call by `handle`, and return how it ended."""
    runner = (
        runner if runner is not None else CallRunner(metrics=Metrics(), max_call_s=60, unavailable_reason="")
    )

    async def sample(request: pb.SampleRequest, context: Context) -> pb.SampleResponse:
        return await runner.answer("Sample", handle, request, context)

    method = grpc.unary_unary_rpc_method_handler(
        sample, pb.SampleRequest.FromString, pb.SampleResponse.SerializeToString
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("convvae.v1.VaeService", {"Sample": method}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
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
        await server.stop(5)


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
    """At the caller's deadline the handler is cancelled, and the call is counted as expired."""
    seen: list[str] = []

    async def wait(request: pb.SampleRequest, call: Call) -> pb.SampleResponse:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        return pb.SampleResponse()

    refusal, runner = await call(wait, timeout_s=0.1)
    assert isinstance(refusal, Refusal)
    assert refusal.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert seen == ["cancelled"]
    assert counted(runner, "DEADLINE_EXCEEDED") == 1
    assert runner.in_flight == 0


async def test_the_server_limits_a_call() -> None:
    """A caller without a deadline meets the server's own, in the server's words."""

    async def wait(request: pb.SampleRequest, call: Call) -> pb.SampleResponse:
        await asyncio.sleep(30)
        return pb.SampleResponse()

    refusal, _ = await call(
        wait, runner=CallRunner(metrics=Metrics(), max_call_s=0.05, unavailable_reason="")
    )
    assert isinstance(refusal, Refusal)
    assert refusal.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert refusal.message == "the call took longer than the server's 0.05 s"


async def test_no_call_is_taken_while_the_server_starts() -> None:
    """Before it is ready a server answers UNAVAILABLE, with what to do."""

    async def answer(request: pb.SampleRequest, call: Call) -> pb.SampleResponse:
        return pb.SampleResponse(seed=1)

    refusal, runner = await call(answer, runner=CallRunner(metrics=Metrics(), max_call_s=60))
    assert isinstance(refusal, Refusal)
    assert refusal.code is grpc.StatusCode.UNAVAILABLE
    assert refusal.message == "the server is starting: try again, or another server"
    runner.unavailable_reason = ""
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


async def test_quiet_waits_for_the_last_arrival() -> None:
    """Each arrival puts the end off, and the bound holds whatever arrives."""
    runner = CallRunner(metrics=Metrics(), max_call_s=60)

    loop = asyncio.get_running_loop()
    runner.last_arrival_s = loop.time()
    started_s = loop.time()
    await runner.wait_until_idle(0.1, at_most_s=5)
    first_s = loop.time() - started_s

    async def keep_calling() -> None:
        while True:
            runner.last_arrival_s = loop.time()
            await asyncio.sleep(0.01)

    calling = asyncio.create_task(keep_calling())
    await asyncio.sleep(0)
    started_s = loop.time()
    await runner.wait_until_idle(0.1, at_most_s=0.3)
    calling.cancel()
    second_s = loop.time() - started_s
    assert 0.09 <= first_s < 2
    assert 0.29 <= second_s < 3


async def test_a_refusal_is_counted_before_it_goes_out() -> None:
    """Whoever has an answer, good or bad, finds the call counted and no longer in flight."""
    runner = CallRunner(metrics=Metrics(), max_call_s=60, unavailable_reason="")
    seen: list[tuple[str, float, int]] = []

    class Watched:
        def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
            return ()

        def set_trailing_metadata(self, metadata: object) -> None:
            pass

        async def abort(self, code: grpc.StatusCode, details: str, trailing_metadata: object) -> None:
            del details, trailing_metadata
            seen.append((code.name, counted(runner, code.name), runner.in_flight))
            raise grpc.aio.AbortError

    async def refuse(request: pb.SampleRequest, call: Call) -> pb.SampleResponse:
        raise NotFound("no such model")

    async def fail(request: pb.SampleRequest, call: Call) -> pb.SampleResponse:
        raise KeyError

    for handle in (refuse, fail):
        with pytest.raises(grpc.aio.AbortError):
            await runner.answer("Sample", handle, pb.SampleRequest(), cast("Context", Watched()))
    assert seen == [("NOT_FOUND", 1.0, 0), ("INTERNAL", 1.0, 0)]
