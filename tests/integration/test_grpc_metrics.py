"""gRPC's own metrics of a real server (gRFC A66), by both fronts."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from convvae.v1 import vae_pb2 as pb
from convvae_service.observability.grpc_metrics import BYTE_BOUNDS, SECOND_BOUNDS
from open_inference import inference_pb2, inference_pb2_grpc
from support.serving import ServerProcess, serving
from support.tiny_bundle import SHAPE
from support.waiting import wait_until
from support.wire import TIMEOUT_S, pixels, random_images, refused, stub_of

ENCODE = "convvae.v1.VaeService/Encode"
SENT = "grpc_server_call_sent_total_compressed_message_size_bytes"
RECEIVED = "grpc_server_call_rcvd_total_compressed_message_size_bytes"
SECONDS = "grpc_server_call_duration_seconds"
ROWS = 20_000


@pytest.fixture
def server(tiny_root: Path, each_front: str) -> Iterator[ServerProcess]:
    """A server that nobody has called."""
    del each_front
    # A call of many rows takes seconds.
    long = ("--max-batch-rows", "1", "--max-rows-per-call", str(ROWS), "--max-queued-rows", str(10 * ROWS))
    with serving(tiny_root, *long) as server:
        yield server


def of_grpc(server: ServerProcess) -> dict[str, float]:
    """Return gRPC's own metrics, without the buckets."""
    found = server.metrics()
    return {name: n for name, n in found.items() if name.startswith("grpc_") and "_bucket{" not in name}


def ended(method: str, status: str) -> str:
    return f'{{grpc_method="{method}",grpc_status="{status}"}}'


def counts_of(server: ServerProcess, method: str) -> dict[str, float]:
    """Return how many calls of a method have ended, by status."""
    pattern = rf'^{SECONDS}_count{{grpc_method="{method}",grpc_status="(\w+)"}} (\S+)$'
    found = re.findall(pattern, server.metrics_page(), re.MULTILINE)
    return {status: float(count) for status, count in found}


def test_calls_are_counted_by_method_and_status(server: ServerProcess) -> None:
    """Each call is started once and ends once, with the bytes of its messages and its seconds."""
    images = random_images(3, *SHAPE.as_tuple)
    request = pb.EncodeRequest(pixels=pixels(images))
    with stub_of(server.target) as stub:
        replies = [stub.Encode(request, timeout=TIMEOUT_S) for _ in range(4)]
        refused(stub.Encode, pb.EncodeRequest())
        refused(stub.Sample, pb.SampleRequest(count=1, model=pb.ModelRef(name="absent")))
    # A refusal is sent before it is counted.
    server.wait_for_metric(f"{SECONDS}_count{ended('convvae.v1.VaeService/Sample', 'NOT_FOUND')} 1.0")
    found = of_grpc(server)
    assert found[f'grpc_server_call_started_total{{grpc_method="{ENCODE}"}}'] == 5
    for name in (SECONDS, SENT, RECEIVED):
        assert found[f"{name}_count{ended(ENCODE, 'OK')}"] == 4
        assert found[f"{name}_count{ended(ENCODE, 'INVALID_ARGUMENT')}"] == 1
        assert found[f"{name}_count{ended('convvae.v1.VaeService/Sample', 'NOT_FOUND')}"] == 1
    assert found[f"{RECEIVED}_sum{ended(ENCODE, 'OK')}"] == 4 * request.ByteSize()
    assert found[f"{SENT}_sum{ended(ENCODE, 'OK')}"] == sum(reply.ByteSize() for reply in replies)
    assert found[f"{SENT}_sum{ended(ENCODE, 'INVALID_ARGUMENT')}"] == 0
    assert 0 < found[f"{SECONDS}_sum{ended(ENCODE, 'OK')}"] < 4 * TIMEOUT_S


def test_the_buckets_are_those_of_the_standard(server: ServerProcess) -> None:
    """Dashboards that were made for other servers read them."""
    with stub_of(server.target) as stub:
        stub.Encode(pb.EncodeRequest(pixels=pixels(random_images(3, *SHAPE.as_tuple))), timeout=TIMEOUT_S)
    page = server.metrics_page()
    for name, bounds in ((SECONDS, SECOND_BOUNDS), (SENT, BYTE_BOUNDS), (RECEIVED, BYTE_BOUNDS)):
        pattern = rf'^{name}_bucket{{grpc_method="{ENCODE}",grpc_status="OK",le="([^"]+)"}} (\S+)$'
        rows = re.findall(pattern, page, re.MULTILINE)
        assert [float(bound) for bound, _ in rows] == [*map(float, bounds), float("inf")]
        counts = [float(count) for _, count in rows]
        assert counts == sorted(counts)
        assert counts[0] == 0
        assert counts[-1] == 1
    assert f"# TYPE {SECONDS} histogram" in page
    assert "# TYPE grpc_server_call_started_total counter" in page


def test_calls_beside_the_service_are_counted_too(server: ServerProcess) -> None:
    """Health, streams and methods that nobody has; the names that callers invent share one row."""
    with grpc.insecure_channel(server.target) as channel:
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
        next(watch)
        watch.cancel()
        images = random_images(1, *SHAPE.as_tuple)
        request = inference_pb2.ModelInferRequest(
            model_name="tiny.encoder", raw_input_contents=[images.tobytes()]
        )
        request.inputs.add(name="image", datatype="UINT8", shape=images.shape)
        stream = inference_pb2_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer
        replies = list(stream(iter([request] * 3), timeout=TIMEOUT_S))
        for path in ("/nowhere/Never", "/convvae.v1.VaeService/Never", "/x"):
            call: Any = channel.unary_unary(path)
            with pytest.raises(grpc.RpcError) as raised:
                call(b"", timeout=TIMEOUT_S)
            assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
    server.wait_for_metric(f"{SECONDS}_count{ended('grpc.health.v1.Health/Watch', 'CANCELLED')} 1.0")
    found = of_grpc(server)
    stream_end = ended("inference.GRPCInferenceService/ModelStreamInfer", "OK")
    assert found[f"{SECONDS}_count{stream_end}"] == 1
    assert found[f"{RECEIVED}_sum{stream_end}"] == 3 * request.ByteSize()
    assert found[f"{SENT}_sum{stream_end}"] == sum(reply.ByteSize() for reply in replies)
    assert found[f"{SENT}_sum{ended('grpc.health.v1.Health/Check', 'OK')}"] == 2
    assert found[f"{SENT}_sum{ended('grpc.health.v1.Health/Watch', 'CANCELLED')}"] == 2
    assert found['grpc_server_call_started_total{grpc_method="other"}'] == 3
    assert found[f"{SECONDS}_count{ended('other', 'UNIMPLEMENTED')}"] == 3
    assert not any("ever" in name for name in found)


def test_a_caller_that_waits_no_longer_is_counted_as_such(server: ServerProcess, each_front: str) -> None:
    """Its deadline or its leaving is the status, and what is started has ended."""
    images = np.zeros((ROWS, *SHAPE.as_tuple), np.uint8)
    request = pb.ScoreRequest(pixels=pixels(images))
    with stub_of(server.target) as stub:
        assert refused(stub.Score, request, timeout=0.05).code is grpc.StatusCode.DEADLINE_EXCEEDED
        call = stub.Score.future(request, timeout=TIMEOUT_S)
        while not server.calls_in_flight():
            assert not call.done()
        call.cancel()
        name = "convvae.v1.VaeService/Score"
        wait_until(lambda: sum(counts_of(server, name).values()) == 2)
    counts = counts_of(server, name)
    # The native front may hear first that the caller leaves, and then that its deadline has passed.
    wanted = {"CANCELLED": 1, "DEADLINE_EXCEEDED": 1}
    assert counts == wanted or (each_front == "native" and counts == {"CANCELLED": 2})
    assert of_grpc(server)[f'grpc_server_call_started_total{{grpc_method="{name}"}}'] == 2
