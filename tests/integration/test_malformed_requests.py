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
    """Requests before it are answered, and no traceback reaches the log."""
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
    """Requests before it are answered."""
    good = encode_request().SerializeToString()
    replies = []
    with grpc.insecure_channel(tiny_server.target) as channel:
        open_stream: Any = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
        call = open_stream(iter((good, BROKEN, good)), timeout=TIMEOUT_S)
        with pytest.raises(grpc.RpcError) as caught:
            replies.extend(call)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert len(replies) == 1


# The native front knows a call of these only when its request has come: docs/service.md, "Fronts".
UNARY = ["convvae.v1.VaeService/Encode", "inference.GRPCInferenceService/ModelInfer"]
METHODS = [*UNARY, "grpc.health.v1.Health/Watch"]


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


def begin(channel: grpc.Channel, method: str, requests: Any, timeout_s: float = TIMEOUT_S) -> Any:
    """Begin a call, which takes one reply or several, and return it."""
    open_stream: Any = channel.stream_stream(f"/{method}")
    return open_stream(requests, timeout=timeout_s)


def ended(call: Any) -> Refusal:
    """Wait until a call without any reply has ended, and return how."""
    with pytest.raises(grpc.RpcError) as caught:
        next(call)
    return Refusal(caught.value)


@pytest.mark.parametrize("method", METHODS)
def test_a_call_without_a_request_is_refused(tiny_server: ServerProcess, front: str, method: str) -> None:
    """A caller that ends its side and has sent nothing is told so, at once."""
    with grpc.insecure_channel(tiny_server.target) as channel:
        refusal = ended(begin(channel, method, iter(())))
    if front == "native" and method in UNARY:
        assert (refusal.code, refusal.message) == (grpc.StatusCode.INTERNAL, "Missing request message.")
        return
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.violations == {"request": "is missing"}
    assert refusal.metadata["x-request-id"]


def test_a_request_that_does_not_come_is_not_waited_for(tiny_root: Path, each_front: str) -> None:
    """A caller that sends headers alone gets DEADLINE_EXCEEDED after `max_call_s`, or at its deadline."""
    patient = UNARY if each_front == "native" else []
    with serving(tiny_root, "--max-call-s", "0.3") as server, grpc.insecure_channel(server.target) as channel:
        silent = {method: Silent() for method in METHODS}
        calls = {method: begin(channel, method, caller, 2.0) for method, caller in silent.items()}
        for method, call in calls.items():
            refusal = ended(call)
            assert refusal.code is grpc.StatusCode.DEADLINE_EXCEEDED
            expected = "the request of the call did not arrive within the server's limit of 0.3 s"
            assert (refusal.message == expected) == (method not in patient)
        for caller in silent.values():
            caller.go()
        count = len(METHODS) - len(patient)
        wait_until(lambda: len(server.messages("call")) >= count)
        assert [line["code"] for line in server.messages("call")] == ["DEADLINE_EXCEEDED"] * count
        assert not server.noise


def test_a_call_without_a_request_does_not_hold_a_drain(tiny_root: Path, each_front: str) -> None:
    """Calls whose request has not come yet are UNAVAILABLE when the server stops, long before its grace."""
    patient = UNARY if each_front == "native" else []
    with serving(tiny_root, "--grace-s", "15") as server, grpc.insecure_channel(server.target) as channel:
        methods = [*METHODS, REFLECTION, "inference.GRPCInferenceService/ModelStreamInfer"]
        silent = {method: Silent() for method in methods}
        calls = {method: begin(channel, method, caller) for method, caller in silent.items()}
        time.sleep(0.5)
        started_s = time.monotonic()
        server.send(signal.SIGTERM)
        for method, call in calls.items():
            refusal = ended(call)
            assert refusal.code is grpc.StatusCode.UNAVAILABLE
            expected = "the server is stopping: try again, or another server"
            assert (refusal.message == expected) == (method not in patient)
        for caller in silent.values():
            caller.go()
        assert server.wait() == 0
        assert time.monotonic() - started_s < 5
        assert not server.noise
