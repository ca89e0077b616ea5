import asyncio
from typing import Any

import grpc
import pytest
from prometheus_client import generate_latest

from convvae.v1 import vae_pb2
from convvae_service.calls.runner import CallRunner
from convvae_service.observability.metrics import Metrics
from convvae_service.server.compression import Unpacking
from convvae_service.server.request_guard import RequestGuard


class Caller:
    """A call's context and its requests; notes whether they are read."""

    def __init__(self, left_s: float | None, requests: list[Any]) -> None:
        self.left_s = left_s
        self.requests = requests
        self.is_read = False
        self.metadata: list[tuple[str, str]] = []
        self.status: tuple[grpc.StatusCode, str] | None = None

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    def time_remaining(self) -> float | None:
        return self.left_s

    def invocation_metadata(self) -> list[tuple[str, str]]:
        return self.metadata

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        self.status = (code, details)
        raise grpc.aio.AbortError

    def code(self) -> Any:
        return self.status[0] if self.status else 0

    async def read(self) -> Any:
        self.is_read = True
        return self.requests.pop(0) if self.requests else grpc.aio.EOF


async def list_models(request: Any, context: Any) -> vae_pb2.ListModelsResponse:
    del request, context
    return vae_pb2.ListModelsResponse()


def handler_of(metrics: Metrics) -> Any:
    guard = RequestGuard(
        CallRunner(metrics=metrics, max_call_s=1.0), None, Unpacking("off", max_bytes=1 << 20)
    )
    return guard.unary("ListModels", list_models, totals=metrics.grpc.totals_of("ListModels"))


def call(caller: Caller, metrics: Metrics) -> Any:
    return asyncio.run(handler_of(metrics)(None, caller))


@pytest.mark.parametrize("left_s", [0.0, -0.5, 0.0009])
def test_an_expired_call_is_dropped_unread(left_s: float) -> None:
    """Reading it in vain would take memory that gRPC never frees; it is counted all the same."""
    caller, metrics = Caller(left_s, [b""]), Metrics()
    with pytest.raises(asyncio.CancelledError):
        call(caller, metrics)
    assert not caller.is_read
    line = 'convvae_calls_total{code="DEADLINE_EXCEEDED",method="ListModels"} 1.0'
    assert line in generate_latest(metrics.registry).decode()


@pytest.mark.parametrize("left_s", [0.01, None])
def test_a_call_in_time_is_answered(left_s: float | None) -> None:
    """With time left, or with no deadline, the one request is read and answered."""
    caller = Caller(left_s, [b""])
    assert call(caller, Metrics()) == vae_pb2.ListModelsResponse()
    assert caller.is_read


async def test_a_call_whose_caller_has_left_is_not_answered() -> None:
    """A call without a request whose caller has left, as gRPC tells a moment later, is sent nothing."""
    caller, metrics = Caller(None, []), Metrics()
    called = asyncio.create_task(handler_of(metrics)(None, caller))
    await asyncio.sleep(0.01)
    called.cancel()
    with pytest.raises(asyncio.CancelledError):
        await called
    # Its context cannot be aborted, which would have raised.
    assert "code=" not in generate_latest(metrics.registry).decode()


def test_metadata_that_grpc_did_not_count_are_refused_unread() -> None:
    """HPACK references of one byte repeat a header: what they repeat counts here, at any moment of a call."""
    caller = Caller(None, [b""])
    caller.metadata = [("x-a", "v" * 4000)] * 4
    assert call(caller, Metrics()) == vae_pb2.ListModelsResponse()
    caller = Caller(None, [b""])
    caller.metadata = [("accept-encoding", "")] * 400
    with pytest.raises(grpc.aio.AbortError):
        call(caller, Metrics())
    assert not caller.is_read
    assert caller.status == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "received metadata of about 18800 bytes: the maximum is 16384",
    )
