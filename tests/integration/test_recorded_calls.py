"""Requests that clients of older versions sent, to the present server of the models of these versions.

The channel sends the recorded bytes, and no stub of today touches them. `tests/golden/record.py` made them.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2

from convvae.v1 import vae_pb2
from open_inference import inference_pb2
from support.recorded import Call, call_of, differences, message_of
from support.serving import serving

RECORDED = Path(__file__).parents[1] / "golden" / "recorded"
RECORDINGS = sorted(path.name for path in RECORDED.iterdir())
DETAILS = "grpc-status-details-bin"
TIMEOUT_S = 20.0


def calls_of(recording: str) -> list[Call]:
    content = json.loads((RECORDED / recording / "calls.json").read_text())
    return [call_of(written) for written in content["calls"]]


def answer_to(channel: grpc.Channel, call: Call) -> Call:
    """Send the bytes of a recorded call, and return it with the answers of now."""
    answered = Call(call.method, call.requests)
    send: Any = channel.stream_stream(call.method)
    answers = send(iter(call.requests), timeout=TIMEOUT_S)
    try:
        for reply in answers:
            answered.replies.append(reply)
            # A watch has no end.
            if call.method.endswith("/Watch") and len(answered.replies) == len(call.replies):
                answers.cancel()
                return answered
    except grpc.RpcError:
        trailing = dict(answers.trailing_metadata() or ())
        answered.code, answered.details = answers.code().name, bytes(trailing.get(DETAILS, b""))
    return answered


def reasons(details: bytes) -> set[str]:
    """Return what a program reads of an error: types of details, reasons, and names of wrong fields."""
    found = set()
    for detail in status_pb2.Status.FromString(details).details:
        found.add(detail.TypeName())
        if detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad = error_details_pb2.BadRequest.FromString(detail.value)
            found |= {violation.field for violation in bad.field_violations}
        elif detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            found.add(error_details_pb2.ErrorInfo.FromString(detail.value).reason)
    return found


@pytest.fixture(scope="module", params=RECORDINGS)
def recording(request: pytest.FixtureRequest) -> str:
    """The name of a recording."""
    return str(request.param)


@pytest.fixture(scope="module")
def answered(recording: str, front: str) -> Iterator[list[tuple[Call, Call]]]:
    """Each recorded call, with the answer of the present server of the recorded model."""
    calls = calls_of(recording)
    with (
        serving(RECORDED / recording / "models", "--front", front) as server,
        grpc.insecure_channel(server.target) as channel,
    ):
        yield [(call, answer_to(channel, call)) for call in calls]


def test_recorded_requests_are_answered_alike(answered: list[tuple[Call, Call]]) -> None:
    """Status and every field of each reply are those of then, but for rounding."""
    faults = []
    for call, now in answered:
        if (now.code, len(now.replies)) != (call.code, len(call.replies)):
            faults.append(f"{call.method}: {now.code}, {len(now.replies)} replies, was {call.code}")
            continue
        for then, reply in zip(call.replies, now.replies, strict=True):
            found = differences(message_of(call.method, then), message_of(call.method, reply))
            faults += [f"{call.method}: {difference}" for difference in found]
    assert faults == []


def test_recorded_refusals_have_their_details(answered: list[tuple[Call, Call]]) -> None:
    """Programs read from an error what they read then: the kinds of details, the reason, the wrong fields."""
    lost = [(call.method, reasons(call.details) - reasons(now.details)) for call, now in answered]
    assert [(method, missing) for method, missing in lost if missing] == []


def changed(field: str) -> tuple[Message, Message]:
    """Return a reply of Encode and of Decode in one, as it was and with a change in one field."""
    vectors = vae_pb2.Vectors(data=np.zeros(4, "<f4").tobytes(), count=1, dimension=4)
    then = vae_pb2.SampleResponse(
        model=vae_pb2.ServedModel(name="digits", version=1, precision="fp32"),
        images=vae_pb2.Pixels(data=bytes(4), count=1, height=2, width=2, channels=1),
        latents=vectors,
    )
    now = vae_pb2.SampleResponse()
    now.CopyFrom(then)
    match field:
        case "precision":
            now.model.ClearField("precision")
        case "images":
            now.images.data = bytes([0, 0, 0, 2])
        case "latents":
            now.latents.data = np.array([0, 0, 0, 1e-4], "<f4").tobytes()
        case "seed":
            now.seed = 7
        case "nothing":
            now.images.data = bytes([0, 0, 0, 1])
            now.latents.data = np.array([0, 0, 0, 1e-6], "<f4").tobytes()
    return then, now


@pytest.mark.parametrize(
    ("field", "found"),
    [
        ("precision", "convvae.v1.ServedModel.precision is missing"),
        ("images", "convvae.v1.Pixels.data is "),
        ("latents", "convvae.v1.Vectors.data is "),
        ("seed", "convvae.v1.SampleResponse.seed is set, which it was not"),
    ],
)
def test_a_change_of_a_reply_is_found(field: str, found: str) -> None:
    """A field that is lost or new, two steps of a pixel, and 1e-4 of a latent value are differences."""
    (difference,) = differences(*changed(field))
    assert difference.startswith(found)


def test_rounding_and_lost_fields_are_told_apart() -> None:
    """One step of a pixel and 1e-6 of a value are rounding; a field that no proto has any more is a loss."""
    assert list(differences(*changed("nothing"))) == []
    then = vae_pb2.SampleResponse.FromString(b"\x98\x06\x01")
    assert list(differences(then, then)) == ["convvae.v1.SampleResponse has no field 99 any more"]


def test_a_recording_has_every_method(recording: str) -> None:
    """Each method of the three services is in it, the first one has answers and refusals."""
    calls = calls_of(recording)
    services: tuple[Any, ...] = (vae_pb2, inference_pb2)
    methods = {
        f"/{service.full_name}/{name}"
        for module in services
        for service in module.DESCRIPTOR.services_by_name.values()
        for name in service.methods_by_name
    }
    health = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
    methods |= {f"/{health}/Check", f"/{health}/Watch"}
    assert methods <= {call.method for call in calls if call.code == "OK"}
    refused = {call.code for call in calls}
    assert refused == {"OK", "NOT_FOUND", "INVALID_ARGUMENT"}
