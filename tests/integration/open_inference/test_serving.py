"""Limits, cancellation, drain, tokens and batches of the Open Inference Protocol with a real server."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from convvae.v1 import vae_pb2
from open_inference import inference_pb2 as pb
from support.inference_wire import IMAGES, decode_request, encode_request, inference_stub, outputs
from support.serving import serving
from support.tiny_bundle import LATENT_DIM, SHAPE, publish_tiny
from support.waiting import wait_until
from support.wire import TIMEOUT_S, pixels, refused, stub_of


@pytest.mark.usefixtures("each_front")
def test_rows_of_one_call_are_limited_by_their_outputs(tiny_root: Path) -> None:
    """Pixel means take more room in a message than images: fewer rows fit, and the limit says how many."""
    latents = np.zeros((1024, LATENT_DIM), np.float32)
    with (
        serving(tiny_root, "--max-message-bytes", "100000") as server,
        inference_stub(server.target) as stub,
    ):
        request = decode_request(latents)
        refusal = refused(stub.ModelInfer, request)
        # 16 bytes of latents, 48 of image and 192 of pixel means a row; 4 KiB for the rest.
        assert refusal.violations == {
            "inputs[0].shape": "of 'latent': 1024 rows are more than the 374 rows of one call with"
            " these outputs"
        }
        config = stub.ModelConfig(pb.ModelConfigRequest(name="tiny.decoder"), timeout=TIMEOUT_S).config
        assert config.max_batch_size == 374
        reply = stub.ModelInfer(decode_request(latents[:374]), timeout=TIMEOUT_S)
        assert reply.ByteSize() <= 100_000
        # As many rows as in the native API, if images alone are asked for.
        request.outputs.add(name="image")
        request.inputs[0].shape[0] = 2000
        assert "more than the 1024 rows" in refused(stub.ModelInfer, request).message


@pytest.mark.usefixtures("each_front")
def test_a_message_above_the_limit_is_refused_by_the_service(tiny_root: Path) -> None:
    """A message that is large for other reasons than rows is INVALID_ARGUMENT, with the limit."""
    request = encode_request()
    request.parameters["ballast"].string_param = "x" * 70_000
    with (
        serving(tiny_root, "--max-message-bytes", "65536") as server,
        inference_stub(server.target) as stub,
    ):
        refusal = refused(stub.ModelInfer, request)
    assert refusal.violations.keys() == {"request"}
    assert "more than the 65536 of one call" in refusal.message


MANY = np.zeros((1000, *SHAPE.as_tuple), np.uint8)


@pytest.mark.usefixtures("each_front")
def test_a_full_queue_says_when_to_come_back(tiny_root: Path) -> None:
    """The queue's limits hold for both APIs together; on a stream the status stands in the message."""
    flags = ("--max-batch-rows", "1", "--max-queued-rows", "1024")
    with (
        serving(tiny_root, *flags) as server,
        inference_stub(server.target) as stub,
        stub_of(server.target) as native,
    ):
        busy = native.Score.future(vae_pb2.ScoreRequest(pixels=pixels(MANY)), timeout=TIMEOUT_S)
        wait_until(lambda: server.calls_in_flight() == 1)
        refusal = refused(stub.ModelInfer, encode_request(MANY))
        (reply,) = stub.ModelStreamInfer(iter([encode_request(MANY)]), timeout=TIMEOUT_S)
        busy.cancel()
    assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (refusal.reason, refusal.retry_delay_s) == ("QUEUE_FULL", 0.1)
    assert reply.error_message.startswith("RESOURCE_EXHAUSTED: the server's queue is full")


@pytest.mark.usefixtures("each_front")
def test_cancelled_and_expired_calls_leave_nothing_behind(tiny_root: Path) -> None:
    """A caller that leaves, a deadline, the request's own timeout, a stream cut off: all work is given up."""
    with (
        serving(tiny_root, "--max-batch-rows", "1", "--log-level", "info") as server,
        inference_stub(server.target) as stub,
    ):
        call = stub.ModelInfer.future(encode_request(MANY), timeout=TIMEOUT_S)
        wait_until(lambda: server.calls_in_flight() == 1)
        call.cancel()
        assert refused(stub.ModelInfer, encode_request(MANY), timeout=0.01).code is (
            grpc.StatusCode.DEADLINE_EXCEEDED
        )
        hasty = encode_request(MANY)
        hasty.parameters["timeout"].int64_param = 1000
        refusal = refused(stub.ModelInfer, hasty)
        assert refusal.code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert refusal.message == ("the request took longer than its parameter 'timeout', 1000 microseconds")
        stream = stub.ModelStreamInfer(iter([encode_request(MANY)] * 40), timeout=TIMEOUT_S)
        next(stream)
        stream.cancel()
        wait_until(lambda: server.calls_in_flight() == 0)
        assert outputs(stub.ModelInfer(encode_request(), timeout=TIMEOUT_S))["mean"].shape == (3, LATENT_DIM)
        assert server.messages("internal error") == []
        assert server.noise == []


@pytest.mark.usefixtures("each_front")
def test_a_drain_turns_ready_and_ends_streams(tiny_root: Path) -> None:
    """Through the delay calls are answered though ready is false; then open streams end, and the server."""
    closing = threading.Event()

    def requests() -> Iterator[pb.ModelInferRequest]:
        yield encode_request(id="first")
        closing.wait(TIMEOUT_S)

    with serving(tiny_root, "--drain-delay-s", "1.5") as server, inference_stub(server.target) as stub:
        stream = stub.ModelStreamInfer(requests(), timeout=TIMEOUT_S)
        assert next(stream).infer_response.id == "first"
        assert stub.ServerReady(pb.ServerReadyRequest(), timeout=5).ready
        server.send(signal.SIGTERM)
        server.wait_for("draining")
        assert stub.ServerLive(pb.ServerLiveRequest(), timeout=5).live
        assert not stub.ServerReady(pb.ServerReadyRequest(), timeout=5).ready
        assert not stub.ModelReady(pb.ModelReadyRequest(name="tiny.encoder"), timeout=5).ready
        assert stub.ModelInfer(encode_request(id="late"), timeout=5).id == "late"
        assert rest_of(stream) == ([], grpc.StatusCode.UNAVAILABLE)
        assert stream.details() == "the server is stopping: try again, or another server"
        closing.set()
        assert server.wait() == 0


@pytest.mark.usefixtures("each_front")
@pytest.mark.parametrize(("sent", "code"), [(10**6, grpc.StatusCode.UNAVAILABLE), (4, grpc.StatusCode.OK)])
def test_a_drain_drops_no_request_of_a_stream_unsaid(
    tiny_root: Path, sent: int, code: grpc.StatusCode
) -> None:
    """Requests that are read are answered; where more may have been sent, the stream says UNAVAILABLE."""
    all_sent = threading.Event()

    def requests() -> Iterator[pb.ModelInferRequest]:
        for _ in range(sent):
            yield encode_request(MANY[:500])
        all_sent.set()

    with serving(tiny_root, "--max-batch-rows", "1") as server, inference_stub(server.target) as stub:
        stream = stub.ModelStreamInfer(requests(), timeout=TIMEOUT_S)
        next(stream)
        # A slow caller may have sent no other request yet.
        wait_until(lambda: all_sent.is_set() or server.calls_in_flight() > 1)
        server.send(signal.SIGTERM)
        replies, found = rest_of(stream)
        assert found is code
        assert server.wait() == 0
    late = [reply.error_message for reply in replies if reply.error_message]
    assert all(message.startswith("UNAVAILABLE: the server is stopping") for message in late)
    assert len(replies) > len(late)
    assert code is grpc.StatusCode.UNAVAILABLE or len(replies) == sent - 1


def rest_of(stream: Any) -> tuple[list[pb.ModelStreamInferResponse], grpc.StatusCode]:
    """Read a stream to its end, and return what came and how it ended."""
    replies: list[pb.ModelStreamInferResponse] = []
    with contextlib.suppress(grpc.RpcError):
        replies.extend(stream)
    return replies, stream.code()


@pytest.mark.usefixtures("each_front")
def test_tokens_are_asked_for(tiny_root: Path, tmp_path: Path) -> None:
    """Without a token no call of the protocol is answered, unary or stream; with one all are."""
    (tmp_path / "tokens").write_text("secret\n")
    with (
        serving(tiny_root, "--token-file", str(tmp_path / "tokens")) as server,
        inference_stub(server.target) as stub,
    ):
        for call, request in (
            (stub.ServerLive, pb.ServerLiveRequest()),
            (stub.ModelInfer, encode_request()),
            (stub.RepositoryIndex, pb.RepositoryIndexRequest()),
        ):
            assert refused(call, request).code is grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(grpc.RpcError) as caught:
            next(stub.ModelStreamInfer(iter([encode_request()]), timeout=TIMEOUT_S))
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        token = (("authorization", "Bearer secret"),)
        assert stub.ModelInfer(encode_request(), timeout=TIMEOUT_S, metadata=token).outputs
        stream = stub.ModelStreamInfer(iter([encode_request()]), timeout=TIMEOUT_S, metadata=token)
        assert [reply.error_message for reply in stream] == [""]


@pytest.mark.usefixtures("each_front")
def test_it_can_be_switched_off(tiny_root: Path) -> None:
    """With `--no-open-inference` the server knows the native API alone."""
    with serving(tiny_root, "--no-open-inference") as server, inference_stub(server.target) as stub:
        refusal = refused(stub.ServerLive, pb.ServerLiveRequest())
        assert refusal.code is grpc.StatusCode.UNIMPLEMENTED
        with stub_of(server.target) as native:
            assert native.Sample(vae_pb2.SampleRequest(count=1), timeout=TIMEOUT_S).images.count == 1


@pytest.mark.usefixtures("each_front")
def test_both_apis_share_batches(tiny_root: Path) -> None:
    """Calls that wait at the same time are run together, whichever API they came by."""
    flags = ("--max-queue-delay-us", "400000", "--max-batch-rows", "6")
    with serving(tiny_root, *flags) as server, inference_stub(server.target) as stub:
        with stub_of(server.target) as native:
            first = native.Encode.future(vae_pb2.EncodeRequest(pixels=pixels(IMAGES)), timeout=TIMEOUT_S)
            second = stub.ModelInfer.future(encode_request(), timeout=TIMEOUT_S)
            assert first.result().mean.count == 3
            assert second.result().outputs[0].shape[0] == 3
        (encoder,) = stub.ModelStatistics(
            pb.ModelStatisticsRequest(name="tiny.encoder"), timeout=TIMEOUT_S
        ).model_stats
    assert [(b.batch_size, b.compute_infer.count) for b in encoder.batch_stats] == [(6, 1)]


@pytest.mark.usefixtures("each_front")
def test_a_stream_outlives_a_reload(tmp_path: Path) -> None:
    """While a version is replaced every request of an open stream is answered, by the old one or the new."""
    publish_tiny(tmp_path)
    done = threading.Event()

    def requests() -> Iterator[pb.ModelInferRequest]:
        while not done.is_set():
            yield encode_request()

    versions: list[str] = []
    with (
        serving(tmp_path, "--watch", "--watch-interval-s", "0.1") as server,
        inference_stub(server.target) as stub,
    ):
        for reply in stub.ModelStreamInfer(requests(), timeout=TIMEOUT_S):
            assert reply.error_message == ""
            versions.append(reply.infer_response.model_version)
            if len(versions) == 20:
                publish_tiny(tmp_path, seed=1)
            if versions[-1] == "2":
                done.set()
        assert versions[:20] == ["1"] * 20
        assert versions == sorted(versions)
        assert versions[-1] == "2"
        index = stub.RepositoryIndex(pb.RepositoryIndexRequest(ready=True), timeout=TIMEOUT_S).models
        assert [(model.name, model.version) for model in index] == [
            ("tiny.encoder", "2"),
            ("tiny.decoder", "2"),
        ]
