"""The methods of a service, with bytes in and bytes out."""

from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from convvae.v1 import vae_pb2 as pb
from convvae_service.calls.request_reader import RequestReader
from convvae_service.calls.runner import CallRunner
from convvae_service.calls.service import Method, Service
from convvae_service.calls.state import State
from convvae_service.calls.status import Refusal
from convvae_service.errors import InvalidInput
from convvae_service.observability.call import Call
from convvae_service.observability.metrics import Metrics
from support.message_limits import LIMITS

RunToEnd = Callable[[Coroutine[Any, Any, Any]], Any]
# A field of 255 bytes that has ended.
TORN = b"\x0a\xff\x01"


async def sample(request: pb.SampleRequest, call: Call) -> pb.SampleResponse:
    call.rows = request.count
    return pb.SampleResponse(seed=request.seed + 1)


def get_model(request: pb.GetModelRequest) -> pb.GetModelResponse:
    return pb.GetModelResponse(objective=request.model.name.upper())


SERVICE = Service(
    descriptor=pb.DESCRIPTOR.services_by_name["VaeService"],
    limits=LIMITS,
    calls={"Sample": sample},
    probes={"GetModel": get_model},
)


def only_method() -> Method:
    (method,) = SERVICE.methods
    return method


def test_a_method_answers_bytes_with_bytes(run_to_end: RunToEnd) -> None:
    """The request is read and the reply is written in the type of the proto, and the call gets its facts."""
    method = only_method()
    assert (method.name, method.path) == ("Sample", "/convvae.v1.VaeService/Sample")
    call = Call("Sample", "id-1")
    data = run_to_end(method.answer(pb.SampleRequest(count=3, seed=41).SerializeToString(), call))
    assert type(data) is bytes
    assert pb.SampleResponse.FromString(data) == pb.SampleResponse(seed=42)
    assert call.rows == 3


def test_an_empty_request_is_a_message(run_to_end: RunToEnd) -> None:
    """Defaults take no bytes on the wire."""
    data = run_to_end(only_method().answer(b"", Call("Sample", "id-1")))
    assert pb.SampleResponse.FromString(data).seed == 1


def test_bytes_that_are_no_message_are_refused(run_to_end: RunToEnd) -> None:
    """The caller is told what is wrong, and the handler does not run."""
    with pytest.raises(InvalidInput) as caught:
        run_to_end(only_method().answer(TORN, Call("Sample", "id-1")))
    assert str(caught.value) == "request: its bytes are not a message of the method's request type"


def test_a_refused_message_is_counted_as_such() -> None:
    """Broken bytes are the caller's error, not one of the service."""
    runner = CallRunner(metrics=Metrics(), max_call_s=60, state=State.SERVING)
    replies: list[Any] = []
    runner.prepare(runner.begin("Sample", ()), only_method().answer, TORN, replies.append).start()
    (reply,) = replies
    assert isinstance(reply, Refusal)
    assert reply.code == "INVALID_ARGUMENT"
    assert runner.metrics.calls.labels("Sample", "INVALID_ARGUMENT")._value.get() == 1


@given(st.binary(max_size=64))
def test_all_bytes_are_a_message_or_refused(data: bytes) -> None:
    """Whatever arrives, the parser of protobuf decides, and nothing else is raised."""
    reader = RequestReader(pb.EncodeRequest, LIMITS)
    try:
        expected = pb.EncodeRequest.FromString(data)
    except DecodeError:
        with pytest.raises(InvalidInput):
            reader.read(data)
    else:
        # A float that is not a number differs from itself, so compare the bytes.
        assert reader.read(data).SerializeToString() == expected.SerializeToString()


def test_a_probe_answers_at_once() -> None:
    """A probe has no call: bytes in, bytes out, and broken bytes are refused."""
    (probe,) = SERVICE.probe_methods
    assert (probe.name, probe.path) == ("GetModel", "/convvae.v1.VaeService/GetModel")
    data = probe.answer(pb.GetModelRequest(model=pb.ModelRef(name="tiny")).SerializeToString())
    assert type(data) is bytes
    assert pb.GetModelResponse.FromString(data).objective == "TINY"
    with pytest.raises(InvalidInput, match="its bytes are not a message"):
        probe.answer(TORN)
