"""Requests whose bytes are no message, and calls without one, as clients of another mind send them."""

import signal
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2

from support.inference_wire import encode_request
from support.serving import ServerProcess, serving
from support.waiting import wait_until
from support.wire import TIMEOUT_S, Refusal, refused

BROKEN = b"\xff\xff\xff"


@pytest.mark.parametrize(
    "method",
    [
        "convvae.v1.VaeService/Encode",
        "inference.GRPCInferenceService/ModelReady",
        "grpc.health.v1.Health/Check",
    ],
)
def test_unreadable_requests_are_the_callers_mistake(tiny_server: ServerProcess, method: str) -> None:
    """Unary calls of every service are refused with the details of any bad request."""
    with grpc.insecure_channel(tiny_server.target) as channel:
        call: Any = channel.unary_unary(f"/{method}")
        refusal = refused(call, BROKEN, metadata=(("x-request-id", "broken"),))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.violations == {"request": "its bytes are not a message of the method's request type"}
    assert refusal.metadata["x-request-id"] == "broken"
    assert not [line for line in tiny_server.lines if line.get("level") == "error"]


REFLECTION = "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"


def test_reflection_refuses_unreadable_requests_too(tiny_server: ServerProcess) -> None:
    """What came before is answered, and no traceback reaches the log."""
    good = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
    with grpc.insecure_channel(tiny_server.target) as channel:
        call = begin(channel, REFLECTION, iter((good, BROKEN, good)))
        names = reflection_pb2.ServerReflectionResponse.FromString(next(call)).list_services_response.service
        assert "convvae.v1.VaeService" in {service.name for service in names}
        refusal = ended(call)
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.violations == {"request": "its bytes are not a message of the method's request type"}
    assert not tiny_server.noise
    assert not [line for line in tiny_server.lines if line.get("level") == "error"]


def test_a_stream_ends_at_an_unreadable_request(tiny_server: ServerProcess) -> None:
    """What came before it is answered."""
    good = encode_request().SerializeToString()
    replies = []
    with grpc.insecure_channel(tiny_server.target) as channel:
        open_stream: Any = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
        call = open_stream(iter((good, BROKEN, good)), timeout=TIMEOUT_S)
        with pytest.raises(grpc.RpcError) as caught:
            replies.extend(call)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert len(replies) == 1


METHODS = [
    "convvae.v1.VaeService/Encode",
    "inference.GRPCInferenceService/ModelInfer",
    "grpc.health.v1.Health/Watch",
]


class Silent:
    """Requests of a caller that sends none, until it is told to go."""

    def __init__(self) -> None:
        self._go = threading.Event()

    def __iter__(self) -> "Silent":
        return self

    def __next__(self) -> bytes:
        self._go.wait(TIMEOUT_S)
        raise StopIteration

    def go(self) -> None:
        """End the requests."""
        self._go.set()


def begin(channel: grpc.Channel, method: str, requests: Any) -> Any:
    """Begin a call, which takes one reply or several, and return it."""
    open_stream: Any = channel.stream_stream(f"/{method}")
    return open_stream(requests, timeout=TIMEOUT_S)


def ended(call: Any) -> Refusal:
    """Wait until a call without any reply has ended, and return how."""
    with pytest.raises(grpc.RpcError) as caught:
        next(call)
    return Refusal(caught.value)


@pytest.mark.parametrize("method", METHODS)
def test_a_call_without_a_request_is_refused(tiny_server: ServerProcess, method: str) -> None:
    """A caller that ends its side and has sent nothing is told so, at once."""
    with grpc.insecure_channel(tiny_server.target) as channel:
        refusal = ended(begin(channel, method, iter(())))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.violations == {"request": "is missing"}
    assert refusal.metadata["x-request-id"]


@pytest.mark.usefixtures("each_front")
def test_a_request_that_does_not_come_is_not_waited_for(tiny_root: Path) -> None:
    """A caller that sends headers alone gets DEADLINE_EXCEEDED after `max_call_s`."""
    with serving(tiny_root, "--max-call-s", "0.3") as server, grpc.insecure_channel(server.target) as channel:
        silent = [Silent() for _ in METHODS]
        calls = [begin(channel, *pair) for pair in zip(METHODS, silent, strict=True)]
        for call in calls:
            refusal = ended(call)
            assert refusal.code is grpc.StatusCode.DEADLINE_EXCEEDED
            expected = "the request of the call did not arrive within the server's limit of 0.3 s"
            assert refusal.message == expected
        for caller in silent:
            caller.go()
        wait_until(lambda: len(server.messages("call")) >= len(METHODS))
        assert {line["code"] for line in server.messages("call")} == {"DEADLINE_EXCEEDED"}
        assert not server.noise


@pytest.mark.usefixtures("each_front")
def test_a_call_without_a_request_does_not_hold_a_drain(tiny_root: Path) -> None:
    """Calls whose request has not come yet are UNAVAILABLE when the server stops, long before its grace."""
    with serving(tiny_root, "--grace-s", "15") as server, grpc.insecure_channel(server.target) as channel:
        methods = [*METHODS, REFLECTION, "inference.GRPCInferenceService/ModelStreamInfer"]
        silent = [Silent() for _ in methods]
        calls = [begin(channel, *pair) for pair in zip(methods, silent, strict=True)]
        time.sleep(0.5)
        started_s = time.monotonic()
        server.send(signal.SIGTERM)
        for call in calls:
            refusal = ended(call)
            assert refusal.code is grpc.StatusCode.UNAVAILABLE
            assert refusal.message == "the server is stopping: try again, or another server"
        for caller in silent:
            caller.go()
        assert server.wait() == 0
        assert time.monotonic() - started_s < 5
        assert not server.noise
