"""Calls that no honest client makes: each has its code, its message and its id, and leaves nothing behind."""

import secrets
import time
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from convvae.v1 import vae_pb2 as pb
from convvae.v1 import vae_pb2_grpc
from open_inference import inference_pb2 as inference
from support.inference_wire import encode_request, inference_stub
from support.raw_http2 import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    connect,
    frame,
    grpc_headers,
    grpc_message,
    grpc_status,
    read_call,
)
from support.serving import ServerProcess, serving
from support.tiny_bundle import SHAPE
from support.wire import TIMEOUT_S, pixels, random_images, refused, stub_of

INVALID = grpc.StatusCode.INVALID_ARGUMENT
IMAGES = random_images(3, *SHAPE.as_tuple)
UNREADABLE = "its bytes are not a message of the method's request type"


NAMES = {
    "tiny/2": "'tiny/2'",
    "../tiny": "'../tiny'",
    "..": "'..'",
    "tiny.encoder": "'tiny.encoder'",
    "TINY": "'TINY'",
    "tiny ": "'tiny '",
    "tiny\0": r"'tiny\x00'",
    "tiny\n\x1b[31m": r"'tiny\n\x1b[31m'",
    # Each takes twelve characters in a header: no more than 64 of them are sent back.
    "\U0001f600" * 500: repr("\U0001f600" * 64),
}


@pytest.mark.parametrize("name", NAMES, ids=[ascii(name)[:20] for name in NAMES])
def test_odd_names_are_names_of_no_model(
    zoo_server: ServerProcess, zoo: vae_pb2_grpc.VaeServiceStub, name: str
) -> None:
    """Slashes, dots, spaces, control characters and pictures lead nowhere, in either protocol."""
    refusal = refused(zoo.Sample, pb.SampleRequest(model=pb.ModelRef(name=name), count=1))
    assert refusal.code is grpc.StatusCode.NOT_FOUND
    assert refusal.reason == "NOT_FOUND"
    assert refusal.message == f"no model {NAMES[name]} on this server: ListModels lists the models"
    assert refusal.metadata["x-request-id"]
    request = encode_request()
    request.model_name = f"{name}.encoder"
    with inference_stub(zoo_server.target) as stub:
        refusal = refused(stub.ModelInfer, request)
    assert refusal.code is grpc.StatusCode.NOT_FOUND
    assert refusal.message.endswith(" and RepositoryIndex lists them")
    assert refusal.metadata["x-request-id"]


@pytest.mark.parametrize(
    ("method", "data"),
    [
        # A name whose bytes are no UTF-8, and a message that ends in the middle of a field.
        ("convvae.v1.VaeService/Sample", b"\x0a\x04\x0a\x02\xff\xfe"),
        ("convvae.v1.VaeService/Sample", b"\x0a\x60\x0a"),
        ("inference.GRPCInferenceService/ModelInfer", b"\x0a\x02\xff\xfe"),
    ],
)
def test_names_that_are_no_text_are_refused(zoo_server: ServerProcess, method: str, data: bytes) -> None:
    """Bytes that are no message fail as any bad request does."""
    with grpc.insecure_channel(zoo_server.target) as channel:
        call: Any = channel.unary_unary(f"/{method}")
        refusal = refused(call, data)
    assert (refusal.code, refusal.violations) == (INVALID, {"request": UNREADABLE})
    assert refusal.metadata["x-request-id"]


@pytest.mark.parametrize(
    "method",
    [
        "convvae.v1.VaeService/Train",
        "convvae.v2.VaeService/Sample",
        "inference.GRPCInferenceService/RepositoryModelUnload",
        "inference.GRPCInferenceService/SystemSharedMemoryRegister",
    ],
)
def test_unknown_methods_are_unimplemented(zoo_server: ServerProcess, method: str) -> None:
    """A method that is not there is gRPC's UNIMPLEMENTED, of which nothing reaches the log."""
    with grpc.insecure_channel(zoo_server.target) as channel:
        call: Any = channel.unary_unary(f"/{method}")
        assert refused(call, b"").code is grpc.StatusCode.UNIMPLEMENTED
    assert not [line for line in zoo_server.lines if line.get("level") == "error"]
    assert zoo_server.noise == []


@pytest.mark.parametrize("draws", [0, 2])
def test_scores_beyond_the_last_row_are_refused(zoo: vae_pb2_grpc.VaeServiceStub, draws: int) -> None:
    """Row numbers end at 2^64 - 1, with and without draws; the last ones can be used."""
    model = pb.ModelRef(name="tiny")
    request = pb.ScoreRequest(
        model=model, pixels=pixels(IMAGES), num_samples=draws, first_row=2**64 - 2, seed=2**64 - 1
    )
    refusal = refused(zoo.Score, request)
    rows = "rows 18446744073709551614 to 18446744073709551616 exceed the highest row, 2^64 - 1"
    assert (refusal.code, refusal.violations) == (INVALID, {"first_row": rows})
    request.first_row -= 1
    assert np.isfinite(zoo.Score(request, timeout=TIMEOUT_S).elbo).all()


def test_draws_that_would_overflow_are_refused(zoo: vae_pb2_grpc.VaeServiceStub) -> None:
    """The product of rows and draws is taken without wrapping round."""
    request = pb.ScoreRequest(model=pb.ModelRef(name="tiny"), pixels=pixels(IMAGES), num_samples=2**31 - 1)
    refusal = refused(zoo.Score, request)
    description = "3 images x 2147483647 samples are more than 1024 rows a call"
    assert (refusal.code, refusal.violations) == (INVALID, {"num_samples": description})


def test_compressed_requests_are_refused_by_default(tiny_root: Path) -> None:
    """On grpcio: UNIMPLEMENTED and the name of the setting, on calls and streams. Deflate is never taken."""
    request = pb.EncodeRequest(model=pb.ModelRef(name="tiny"), pixels=pixels(IMAGES))
    streamed = inference.ModelInferRequest(raw_input_contents=[bytes(1000)])
    with (
        serving(tiny_root, "--front", "grpcio") as server,
        stub_of(server.target) as zoo,
        inference_stub(server.target) as stub,
    ):
        for num_bytes in (1000, 60 << 20):
            request.files[:] = [bytes(num_bytes)]
            refusal = refused(zoo.Encode, request, compression=grpc.Compression.Gzip)
            assert refusal.code is grpc.StatusCode.UNIMPLEMENTED
            assert "--request-compression" in refusal.message
        with pytest.raises(grpc.RpcError) as caught:
            list(stub.ModelStreamInfer(iter([streamed]), compression=grpc.Compression.Gzip))
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        refusal = refused(zoo.Encode, request, compression=grpc.Compression.Deflate)
        assert refusal.code is grpc.StatusCode.UNIMPLEMENTED


def test_compressed_requests_are_read_and_limited(tiny_root: Path) -> None:
    """With the setting, a request in gzip is answered as it is without; what it unpacks to is limited."""
    flags = ("--front", "grpcio", "--request-compression", "gzip")
    with serving(tiny_root, *flags) as server, stub_of(server.target) as stub:
        request = pb.EncodeRequest(model=pb.ModelRef(name="tiny"), pixels=pixels(IMAGES))
        plain = stub.Encode(request, timeout=TIMEOUT_S)
        assert stub.Encode(request, timeout=TIMEOUT_S, compression=grpc.Compression.Gzip) == plain
        for mib in (2, 65, 200):
            bomb = pb.EncodeRequest(files=[bytes(mib << 20)])
            refusal = refused(stub.Encode, bomb, compression=grpc.Compression.Gzip)
            assert refusal.code is INVALID
            assert "when it is unpacked" in refusal.violations["request"]


def test_a_deadline_that_has_passed_is_answered_and_never_computed(zoo_server: ServerProcess) -> None:
    """Clients would not even send such a call; the server says DEADLINE_EXCEEDED, and nothing is computed."""
    for timeout in ("0n", "1n"):
        reply = raw_sample(zoo_server.target, {"grpc-timeout": timeout, "x-request-id": "too-late"})
        assert grpc_status(reply) == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
    assert zoo_server.calls_in_flight() == 0
    lines = zoo_server.messages("call")
    assert {line["code"] for line in lines if line["request_id"] == "too-late"} <= {"DEADLINE_EXCEEDED"}


@pytest.mark.parametrize(
    "given", ["x" * 129, "a b", "", "a\tb", "a\x1b[31mb", "a\x7f", "\xe9", 'line", "level": "error\n']
)
def test_ids_that_no_log_should_hold_are_replaced(zoo_server: ServerProcess, given: str) -> None:
    """An id that is too long, or has other characters than plain ones, reaches neither log nor reply."""
    names = [f"good-{secrets.token_hex(4)}" for _ in range(2)]
    with stub_of(zoo_server.target) as stub:
        call_as(stub, names[0])
        raw_sample(zoo_server.target, {"x-request-id": given})
        call_as(stub, names[1])
    zoo_server.wait_for("call", 5, request_id=names[1])
    logged = [line["request_id"] for line in zoo_server.messages("call")]
    new = logged[logged.index(names[0]) + 1 : logged.index(names[1])]
    assert given not in new
    # gRPC itself turns some of them away.
    assert all(len(name) == 16 and name.isalnum() for name in new)
    assert zoo_server.noise == []


def call_as(stub: vae_pb2_grpc.VaeServiceStub, request_id: str) -> None:
    """Make a call with this id, which comes back with the reply."""
    request = pb.SampleRequest(model=pb.ModelRef(name="tiny"), count=1)
    _, call = stub.Sample.with_call(request, timeout=TIMEOUT_S, metadata=(("x-request-id", request_id),))
    assert dict(call.trailing_metadata())["x-request-id"] == request_id


def test_every_error_has_an_id(zoo_server: ServerProcess, zoo: vae_pb2_grpc.VaeServiceStub) -> None:
    """Whatever the service refuses, in either protocol, the caller's id comes back and is in the log."""
    metadata = (("x-request-id", "mine-77"),)
    plain = pb.ModelRef(name="plain")
    with inference_stub(zoo_server.target) as stub:
        calls: list[tuple[Any, Any]] = [
            (zoo.Encode, pb.EncodeRequest(model=plain)),
            (zoo.Decode, pb.DecodeRequest(model=plain)),
            (zoo.Sample, pb.SampleRequest(model=plain, count=1)),
            (zoo.Reconstruct, pb.ReconstructRequest(model=plain)),
            (zoo.Score, pb.ScoreRequest(model=plain)),
            (zoo.GetModel, pb.GetModelRequest(model=pb.ModelRef(name="tiny", version=1))),
            (stub.ModelInfer, inference.ModelInferRequest(model_name="tiny.encoder")),
            (stub.ModelMetadata, inference.ModelMetadataRequest(name="tiny.encoder", version="1")),
            (stub.ModelConfig, inference.ModelConfigRequest(name="no.encoder")),
            (stub.ModelStatistics, inference.ModelStatisticsRequest(name="no.encoder")),
            (stub.RepositoryIndex, inference.RepositoryIndexRequest(repository_name="no")),
        ]
        found = []
        for call, request in calls:
            refusal = refused(call, request, metadata=metadata)
            assert refusal.metadata["x-request-id"] == "mine-77"
            assert refusal.reason
            found.append(refusal.code.name)
    assert logged_codes(zoo_server, "mine-77", len(found)) == found


def logged_codes(server: ServerProcess, request_id: str, count: int) -> list[str]:
    """Return the codes of the calls with this id, of which the log is about to have `count`."""
    deadline_s = time.monotonic() + 5
    while True:
        codes = [line["code"] for line in server.messages("call") if line["request_id"] == request_id]
        if len(codes) >= count or time.monotonic() > deadline_s:
            return codes
        time.sleep(0.01)


def raw_sample(target: str, metadata: dict[str, str]) -> bytes:
    """Call `Sample` of `tiny` with headers that no library would send, and return what comes back."""
    message = pb.SampleRequest(model=pb.ModelRef(name="tiny"), count=1).SerializeToString()
    block = grpc_headers("convvae.v1.VaeService/Sample", metadata)
    with connect(target) as connected:
        connected.sendall(
            frame(HEADERS, END_HEADERS, 1, block) + frame(DATA, END_STREAM, 1, grpc_message(message))
        )
        return read_call(connected)
