"""Start, readiness, drain and stop of a real server process."""

import signal
import socket
import subprocess
import sys
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
from support.tiny_bundle import LATENT_DIM, SHAPE, publish_tiny
from support.wire import TIMEOUT_S, Refusal, pixels, random_images, refused, stub_of, vectors

CODES = ("OK", "INVALID_ARGUMENT")
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def start_failure(*flags: str) -> str:
    """Run a server that must not start, and return its one line of complaint."""
    words = [sys.executable, "-m", "convvae_service", "run", "--metrics-address", "127.0.0.1:0", *flags]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    return errors[0].removeprefix("error: ")


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
    """What is being computed when the signal comes is answered, not cut."""
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
    assert "convvae_queued_bytes 0.0" in page


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
def test_ready_within_a_second_and_a_half(tmp_path: Path) -> None:
    """SERVING is answered soon after the command, the interpreter's start included (best of up to five)."""
    publish_tiny(tmp_path)
    seconds: list[float] = []
    while len(seconds) < 5 and min(seconds, default=9.0) >= 1.5:
        with serving(tmp_path) as server, grpc.insecure_channel(server.target) as channel:
            reply = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
            seconds.append(time.monotonic() - server.started_s)
            assert reply.status == SERVING
    assert min(seconds) < 1.5


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
def test_an_address_in_use_is_said_to_be(tiny_server: ServerProcess, tiny_root: Path) -> None:
    """A second server on the port does not start; nor does one whose metrics address is taken."""
    message = start_failure("--models", str(tiny_root), "--address", tiny_server.target)
    assert message == (
        f"address {tiny_server.target} cannot be used: another program listens there;"
        " choose another with --address"
    )
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        flags = ("--address", "127.0.0.1:0", "--metrics-address", address)
        message = start_failure("--models", str(tiny_root), *flags)
    assert message == (
        f"metrics address {address} cannot be used: another program listens there;"
        " choose another with --metrics-address, or 'off'"
    )


def test_repositories_that_cannot_be_served(tmp_path: Path) -> None:
    """A missing or empty root, an unknown pin and an unusable model each end the start with a reason."""
    address = ("--address", "127.0.0.1:0")
    missing = str(tmp_path / "missing")
    assert start_failure("--models", missing, *address) == f"model repository {missing!r} does not exist"
    empty = tmp_path / "empty"
    empty.mkdir()
    message = start_failure("--models", str(empty), *address)
    assert message == f"no model version is published under {str(empty)!r}: export one there first"
    version = publish_tiny(tmp_path / "models")
    root = str(tmp_path / "models")
    message = start_failure("--models", root, *address, "--serve", "tiny=2")
    assert message == f"--serve tiny=2: no such version is published under {root!r}"
    for flag, word in (("--precision", "tyni=fp32"), ("--versions", "tyni=all")):
        for watch in ((), ("--watch",)):
            message = start_failure("--models", root, *address, *watch, flag, word)
            assert message == f"{flag} names the model 'tyni', which is not published under {root!r}"
    message = start_failure("--models", root, *address, "--precision", "int8")
    assert message == (
        "no usable version: model 'tiny', version 1: has no int8 graphs: it has fp32."
        " Copy the version again, export it again, or remove its folder"
    )
    message = start_failure("--models", root, *address, "--device", "cuda:99")
    assert "device 'cuda:99'" in message
    (version / "encoder.onnx").write_bytes(b"")
    message = start_failure("--models", root, *address)
    assert message.startswith("no usable version: model 'tiny', version 1: encoder.onnx has 0 bytes, the")


def test_a_bad_version_does_not_stop_the_good_one_before_it(tmp_path: Path) -> None:
    """The highest usable version serves; the bad one is listed with its fault and logged."""
    publish_tiny(tmp_path)
    (publish_tiny(tmp_path) / "decoder.onnx").unlink()
    with serving(tmp_path) as server, stub_of(server.target) as stub:
        reply = stub.Encode(pb.EncodeRequest(pixels=pixels(random_images(1, *SHAPE.as_tuple))), timeout=5)
        listed = stub.ListModels(pb.ListModelsRequest(), timeout=5).models[0].versions
        assert server.wait_for("model version cannot be loaded")["version"] == 2
        assert 'convvae_load_failures_total{model="tiny"} 1.0' in server.metrics_page()
    assert reply.model.version == 1
    assert [(v.version, v.state, v.is_default, v.error) for v in listed] == [
        (1, pb.VERSION_STATE_SERVING, True, ""),
        (2, pb.VERSION_STATE_FAILED, False, "decoder.onnx is missing"),
    ]


def test_a_broken_model_does_not_stop_the_others(tmp_path: Path) -> None:
    """A model without a usable version is unready and says why; the others are served."""
    publish_tiny(tmp_path, "good")
    (publish_tiny(tmp_path, "bad") / "encoder.onnx").unlink()
    with serving(tmp_path) as server, grpc.insecure_channel(server.target) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        found = {
            name: health.Check(health_pb2.HealthCheckRequest(service=name), timeout=5).status
            for name in ("", "good", "bad")
        }
        assert found == {"": SERVING, "good": SERVING, "bad": NOT_SERVING}
        with stub_of(server.target) as stub:
            assert stub.Sample(pb.SampleRequest(model=pb.ModelRef(name="good"), count=1), timeout=5).seed
            refusal = refused(stub.Sample, pb.SampleRequest(model=pb.ModelRef(name="bad"), count=1))
    assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION
    assert refusal.message == "no version of model 'bad' could be loaded: ListModels has the reason"


@pytest.mark.usefixtures("each_front")
def test_a_signal_during_the_start_ends_it(tmp_path: Path) -> None:
    """A server that is told to stop while it loads does not load all the rest first."""
    for index in range(150):
        publish_tiny(tmp_path, f"model-{index:03}")
    server = ServerProcess(tmp_path)
    server.wait_for("model version loaded")
    server.send(signal.SIGTERM)
    assert server.wait() == 0
    assert not server.messages("serving")
    assert len(server.messages("model version loaded")) < 150


@pytest.mark.usefixtures("each_front")
def test_an_expired_call_is_counted_as_expired(tiny_root: Path) -> None:
    """The caller's deadline shows as DEADLINE_EXCEEDED, its leaving as CANCELLED."""
    images = np.zeros((1000, *SHAPE.as_tuple), np.uint8)
    with serving(tiny_root, "--max-batch-rows", "1") as server, stub_of(server.target) as stub:
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
