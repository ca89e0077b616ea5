"""Requests whose bytes are no message, as a client with another idea of the contract sends them."""

from typing import Any

import grpc
import pytest

from inference_wire import encode_request
from serving import ServerProcess
from wire import TIMEOUT_S, refused

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
    assert refusal.violations == {"request": "its bytes are no message of the method's request type"}
    assert refusal.metadata["x-request-id"] == "broken"
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
