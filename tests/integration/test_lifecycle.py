"""Calls, drain and stop of a real server process, with its metrics and log."""

import signal
import socket
import threading
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from convvae.v1 import vae_pb2 as pb
from convvae_service.observability.logs import is_sampled
from support.serving import ServerProcess, serving
from support.tiny_bundle import LATENT_DIM, SHAPE
from support.wire import TIMEOUT_S, Refusal, pixels, random_images, refused, stub_of, vectors

CODES = ("OK", "INVALID_ARGUMENT")
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.mark.usefixtures("each_front")
def test_watch_follows_a_drain_and_liveness_does_not(tiny_root: Path) -> None:
    """SIGTERM turns every name but liveness, calls are answered through the delay, then the port closes."""
    with serving(tiny_root, "--drain-delay-s", "3") as server:
        with grpc.insecure_channel(server.target) as channel, stub_of(server.target) as stub:
            health = health_pb2_grpc.HealthStub(channel)
            watch = health.Watch(health_pb2.HealthCheckRequest(service="tiny"), timeout=TIMEOUT_S)
            assert next(watch).status == SERVING
            server.send(signal.SIGTERM)
            assert next(watch).status == NOT_SERVING
            for name, status in (("", NOT_SERVING), ("tiny", NOT_SERVING), ("liveness", SERVING)):
                assert health.Check(health_pb2.HealthCheckRequest(service=name), timeout=5).status == status
            assert stub.Sample(pb.SampleRequest(count=1), timeout=5).images.count == 1
            assert list(watch) == []
        assert server.wait() == 0
    with stub_of(server.target) as stub:
        assert refused(stub.Sample, pb.SampleRequest(count=1), timeout=3).code is grpc.StatusCode.UNAVAILABLE


@pytest.mark.usefixtures("each_front")
def test_calls_in_flight_finish_in_the_grace(tiny_root: Path) -> None:
    """A call that is being computed when the signal comes is answered, not cut."""
    images = np.zeros((1000, *SHAPE.as_tuple), np.uint8)
    with serving(tiny_root, "--max-batch-rows", "1") as server, stub_of(server.target) as stub:
        stub.Sample(pb.SampleRequest(count=1), timeout=TIMEOUT_S)
        calls = [
            stub.Score.future(pb.ScoreRequest(pixels=pixels(images)), timeout=TIMEOUT_S) for _ in range(6)
        ]
        server.wait_for_metric("convvae_calls_in_flight 6.0")
        server.send(signal.SIGTERM)
        assert [len(call.result().elbo) for call in calls] == [1000] * 6
        assert server.wait() == 0


@pytest.mark.usefixtures("each_front")
def test_a_second_signal_stops_at_once(tiny_root: Path) -> None:
    """An operator who insists need not wait for the drain, and sees it in the exit code."""
    with serving(tiny_root, "--drain-delay-s", "60") as server:
        server.send(signal.SIGTERM)
        server.wait_for("draining")
        started_s = time.monotonic()
        assert server.stop() == 1
        assert time.monotonic() - started_s < 5


@pytest.mark.usefixtures("each_front")
def test_ctrl_c_does_not_wait_for_balancers(tiny_root: Path) -> None:
    """SIGINT drains without the delay."""
    with serving(tiny_root, "--drain-delay-s", "60") as server:
        started_s = time.monotonic()
        assert server.stop(signal.SIGINT) == 0
        assert time.monotonic() - started_s < 5


@pytest.mark.usefixtures("each_front")
def test_a_cancelled_or_expired_call_is_not_computed(tiny_root: Path) -> None:
    """Rows whose caller gave up never reach the engine, and the queue is empty afterwards."""
    images = np.zeros((1000, *SHAPE.as_tuple), np.uint8)
    latents = np.zeros((1000, LATENT_DIM), np.float32)
    with serving(tiny_root, "--max-batch-rows", "1") as server, stub_of(server.target) as stub:
        stub.Sample(pb.SampleRequest(count=1), timeout=TIMEOUT_S)
        running = stub.Encode.future(pb.EncodeRequest(pixels=pixels(images)), timeout=TIMEOUT_S)
        doomed = [
            stub.Decode.future(pb.DecodeRequest(latents=vectors(latents)), timeout=0.02) for _ in range(4)
        ]
        left = stub.Decode.future(pb.DecodeRequest(latents=vectors(latents)), timeout=TIMEOUT_S)
        left.cancel()
        assert {call.code() for call in doomed} == {grpc.StatusCode.DEADLINE_EXCEEDED}
        assert running.result().mean.count == 1000
        server.wait_for_metric("convvae_calls_in_flight 0.0")
        page = server.metrics_page()
    decoded = sum(
        float(line.rsplit(" ", 1)[1])
        for line in page.splitlines()
        if line.startswith('convvae_batch_rows_sum{stage="decode"}')
    )
    assert decoded < 2500, "most rows of five calls of 1,000 must not have been computed"
    assert "convvae_queued_rows 0.0" in page
    assert "convvae_pending_bytes 0.0" in page


@pytest.mark.usefixtures("each_front")
def test_a_full_queue_refuses_with_a_delay(tiny_root: Path) -> None:
    """Beyond the queue's rows a call is RESOURCE_EXHAUSTED with RetryInfo; those admitted are answered."""
    images = np.zeros((1000, *SHAPE.as_tuple), np.uint8)
    flags = ("--max-batch-rows", "1", "--max-queued-rows", "2000")
    with serving(tiny_root, *flags) as server, stub_of(server.target) as stub:
        request = pb.EncodeRequest(pixels=pixels(images))
        calls = [stub.Encode.future(request, timeout=TIMEOUT_S) for _ in range(8)]
        codes = [call.code() for call in calls]
        refusals = [Refusal(call.exception()) for call in calls if call.code() is not grpc.StatusCode.OK]
        assert stub.Encode(request, timeout=TIMEOUT_S).mean.count == 1000
    assert codes.count(grpc.StatusCode.OK) >= 2
    assert len(refusals) >= 1
    for refusal in refusals:
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
        assert refusal.message == "the server's queue is full: retry after the stated delay"
        assert refusal.retry_delay_s == pytest.approx(0.1)


@pytest.mark.usefixtures("each_front")
def test_the_server_limits_the_time_of_a_call(tiny_root: Path) -> None:
    """Without a caller's deadline the server's own holds, as DEADLINE_EXCEEDED."""
    images = np.zeros((1000, *SHAPE.as_tuple), np.uint8)
    flags = ("--max-batch-rows", "1", "--max-call-s", "0.01")
    with serving(tiny_root, *flags) as server, stub_of(server.target) as stub:
        refusal = refused(stub.Encode, pb.EncodeRequest(pixels=pixels(images)))
    assert refusal.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert refusal.message == "the call took longer than the server's limit of 0.01 s"


@pytest.mark.usefixtures("each_front")
@pytest.mark.parametrize("host", ["localhost", "[::]", "0.0.0.0"])
def test_metrics_answer_where_calls_do(tiny_root: Path, host: str) -> None:
    """A host means the same for both, and the log has it as it was typed."""
    with serving(tiny_root, "--address", f"{host}:0", "--metrics-address", f"{host}:0") as server:
        line = server.wait_for("serving")
        for place in (line["address"], line["metrics"]):
            assert place.rpartition(":")[0] == host
        ports = [int(line[key].rpartition(":")[2]) for key in ("address", "metrics")]
        answers = [[answers_at(family, port) for port in ports] for family in ("127.0.0.1", "::1")]
    assert answers[0] == [True, True]
    assert answers[1][0] == answers[1][1]


def answers_at(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        return False
    return True


@pytest.mark.usefixtures("each_front")
def test_an_expired_call_is_counted_as_expired(tiny_root: Path) -> None:
    """The caller's deadline shows as DEADLINE_EXCEEDED, its leaving as CANCELLED."""
    images = np.zeros((8000, *SHAPE.as_tuple), np.uint8)
    limits = "--max-batch-rows", "1", "--max-rows-per-call", "8000"
    with serving(tiny_root, *limits) as server, stub_of(server.target) as stub:
        request = pb.ScoreRequest(pixels=pixels(images))
        assert refused(stub.Score, request, timeout=0.05).code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert server.wait_for("call", 5)["code"] == "DEADLINE_EXCEEDED"


@pytest.mark.usefixtures("each_front")
def test_metrics_tell_what_happened(tiny_root: Path) -> None:
    """Calls, rows, batches and models are counted under their documented names."""
    images = random_images(5, *SHAPE.as_tuple)
    with serving(tiny_root) as server, stub_of(server.target) as stub:
        stub.Reconstruct(pb.ReconstructRequest(pixels=pixels(images)), timeout=TIMEOUT_S)
        refused(stub.Sample, pb.SampleRequest(count=-1))
        page = server.metrics_page()
    for line in (
        'convvae_calls_total{code="OK",method="Reconstruct"} 1.0',
        'convvae_calls_total{code="INVALID_ARGUMENT",method="Sample"} 1.0',
        'convvae_rows_total{method="Reconstruct"} 5.0',
        'convvae_batch_rows_sum{stage="decode"} 5.0',
        'convvae_queue_seconds_count{stage="encode"} 1.0',
        'convvae_model_info{model="tiny",precision="fp32",provider="CPUExecutionProvider",version="1"} 1.0',
    ):
        assert line in page


def test_metrics_can_be_switched_off(tiny_root: Path) -> None:
    """With `off` there is no page, and the log says so."""
    with serving(tiny_root, "--metrics-address", "off") as server:
        assert server.wait_for("serving")["metrics"] == "off"


@pytest.mark.usefixtures("each_front")
def test_the_log_has_a_line_for_each_call(tiny_root: Path) -> None:
    """Method, code, model, rows, time and request id of a call are facts of its line."""
    with serving(tiny_root) as server, stub_of(server.target) as stub:
        stub.Sample(pb.SampleRequest(count=3), timeout=5, metadata=(("x-request-id", "me-7"),))
        line = server.wait_for("call", 5)
    expected = {
        "method": "Sample",
        "code": "OK",
        "model": "tiny",
        "version": 1,
        "rows": 3,
        "request_id": "me-7",
    }
    assert {key: line[key] for key in expected} == expected
    assert line["seconds"] > 0
    assert line["level"] == "info"
    assert not server.noise


def test_the_log_has_a_share_of_answers_and_every_error(tiny_root: Path) -> None:
    """With a sample of 0.5 the ids decide which answers are logged; no refusal is ever left out."""
    ids = [f"call-{number}" for number in range(12)]
    with serving(tiny_root, "--access-log-sample", "0.5") as server, stub_of(server.target) as stub:
        for name in ids:
            metadata = (("x-request-id", name),)
            stub.Sample(pb.SampleRequest(count=1), timeout=TIMEOUT_S, metadata=metadata)
            refused(stub.Sample, pb.SampleRequest(count=-1), metadata=metadata)
    lines = server.messages("call")
    logged = {code: [line["request_id"] for line in lines if line["code"] == code] for code in CODES}
    assert logged["OK"] == [name for name in ids if is_sampled(name, 0.5)]
    assert 0 < len(logged["OK"]) < len(ids)
    assert logged["INVALID_ARGUMENT"] == ids
    assert len(lines) == len(logged["OK"]) + len(ids)


def test_many_clients_at_once(tiny_server: ServerProcess) -> None:
    """Concurrent callers on their own channels each get their own rows back."""
    failures: list[BaseException] = []

    def call(seed: int) -> None:
        try:
            rows = np.random.default_rng(seed).normal(size=(seed % 7 + 1, LATENT_DIM)).astype(np.float32)
            with stub_of(tiny_server.target) as stub:
                request = pb.DecodeRequest(latents=vectors(rows))
                replies = [stub.Decode(request, timeout=TIMEOUT_S).images for _ in range(5)]
            assert all(reply.count == len(rows) for reply in replies)
            arrays = [np.frombuffer(reply.data, np.uint8).astype(int) for reply in replies]
            assert max(np.abs(array - arrays[0]).max() for array in arrays) <= 1
        except BaseException as error:  # noqa: BLE001 - handed to the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=call, args=(seed,)) for seed in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
