"""Inference, descriptions and statistics of the Open Inference Protocol over the wire."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from convvae.v1 import vae_pb2
from convvae_service.engine.parallelism import choose_parallelism
from open_inference import inference_pb2 as pb
from support.inference_wire import (
    IMAGES,
    LATENTS,
    Stub,
    decode_request,
    encode_request,
    inference_stub,
    outputs,
)
from support.serving import ServerProcess, serving
from support.tiny_bundle import LATENT_DIM
from support.wire import TIMEOUT_S, pixels, refused, stub_of, unpack, unpack_pixels, vectors


def test_encoder_equals_the_native_call(tiny_server: ServerProcess, stub: Stub) -> None:
    """The same images give the same posterior through either API; the reply names what answered."""
    reply = stub.ModelInfer(encode_request(id="mine"), timeout=TIMEOUT_S)
    with stub_of(tiny_server.target) as native:
        request = vae_pb2.EncodeRequest(pixels=pixels(IMAGES), include_log_variance=True)
        expected = native.Encode(request, timeout=TIMEOUT_S)
    found = outputs(reply)
    assert list(found) == ["mean", "log_variance"]
    np.testing.assert_allclose(found["mean"], unpack(expected.mean), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["log_variance"], unpack(expected.log_variance), rtol=1e-5, atol=1e-6)
    assert (reply.model_name, reply.model_version, reply.id) == ("tiny.encoder", "1", "mine")
    assert reply.parameters["precision"].string_param == "fp32"


def test_decoder_equals_the_native_call(tiny_server: ServerProcess, stub: Stub) -> None:
    """Images are those of the native Decode, and each is its pixel mean in steps of 1/255."""
    found = outputs(stub.ModelInfer(decode_request(), timeout=TIMEOUT_S))
    with stub_of(tiny_server.target) as native:
        expected = native.Decode(vae_pb2.DecodeRequest(latents=vectors(LATENTS)), timeout=TIMEOUT_S)
    assert list(found) == ["image", "pixel_mean"]
    np.testing.assert_array_equal(found["image"], unpack_pixels(expected.images))
    np.testing.assert_array_equal(np.round(found["pixel_mean"] * 255).astype(np.uint8), found["image"])


@pytest.mark.parametrize("names", [["image"], ["pixel_mean"], ["pixel_mean", "image"]])
def test_outputs_come_as_asked_for(stub: Stub, names: list[str]) -> None:
    """A request gets the outputs that it names, in its order, with the values that they always have."""
    request = decode_request()
    for name in names:
        request.outputs.add(name=name)
    found = outputs(stub.ModelInfer(request, timeout=TIMEOUT_S))
    assert list(found) == names
    every = outputs(stub.ModelInfer(decode_request(), timeout=TIMEOUT_S))
    for name in names:
        np.testing.assert_array_equal(found[name], every[name])


def test_typed_values_equal_raw_ones(stub: Stub) -> None:
    """Values in `contents` and the same in `raw_input_contents` have the same results."""
    typed = encode_request()
    typed.ClearField("raw_input_contents")
    typed.inputs[0].contents.uint_contents.extend(IMAGES.ravel().tolist())
    typed_latents = decode_request()
    typed_latents.ClearField("raw_input_contents")
    typed_latents.inputs[0].contents.fp32_contents.extend(LATENTS.ravel().tolist())
    for one, other in ((typed, encode_request()), (typed_latents, decode_request())):
        first, second = (outputs(stub.ModelInfer(request, timeout=TIMEOUT_S)) for request in (one, other))
        assert first.keys() == second.keys()
        for name in first:
            np.testing.assert_allclose(first[name], second[name], rtol=1e-5, atol=1e-6)


def test_parameters_without_a_meaning_here_are_ignored(stub: Stub) -> None:
    """Priorities, sequences and what nobody knows do not change a result."""
    request = encode_request()
    request.parameters["priority"].uint64_param = 7
    request.parameters["sequence_id"].int64_param = 3
    request.parameters["unheard_of"].string_param = "x"
    request.inputs[0].parameters["binary_data_size"].int64_param = 1
    assert outputs(stub.ModelInfer(request, timeout=TIMEOUT_S))["mean"].shape == (3, LATENT_DIM)


def test_versions_can_be_pinned(zoo: Stub) -> None:
    """A request for the version that serves is answered by it, as one without a version is."""
    for version in ("", "2"):
        reply = zoo.ModelInfer(encode_request(model_version=version), timeout=TIMEOUT_S)
        assert reply.model_version == "2"
        assert zoo.ModelReady(pb.ModelReadyRequest(name="tiny.encoder", version=version)).ready


def test_versions_side_by_side(zoo_root: Path) -> None:
    """Each of several loaded versions answers when it is asked for; description and statistics know both."""
    with serving(zoo_root, "--versions", "all") as server, inference_stub(server.target) as stub:
        means = {}
        for version in ("1", "2"):
            reply = stub.ModelInfer(encode_request(model_version=version), timeout=TIMEOUT_S)
            assert reply.model_version == version
            means[version] = outputs(reply)["mean"]
        metadata = stub.ModelMetadata(pb.ModelMetadataRequest(name="tiny.encoder"), timeout=TIMEOUT_S)
        asked = pb.ModelStatisticsRequest(name="tiny.encoder")
        statistics = stub.ModelStatistics(asked, timeout=TIMEOUT_S).model_stats
    assert not np.allclose(means["1"], means["2"])
    assert list(metadata.versions) == ["1", "2"]
    assert [(s.version, s.inference_stats.success.count) for s in statistics] == [("1", 1), ("2", 1)]


def test_an_autoencoder_has_no_log_variance(zoo: Stub) -> None:
    """The encoder of an `ae` has the mean alone, in its description and in its replies."""
    metadata = zoo.ModelMetadata(pb.ModelMetadataRequest(name="plain.encoder"), timeout=TIMEOUT_S)
    assert [tensor.name for tensor in metadata.outputs] == ["mean"]
    request = encode_request()
    request.model_name = "plain.encoder"
    assert list(outputs(zoo.ModelInfer(request, timeout=TIMEOUT_S))) == ["mean"]
    request.outputs.add(name="log_variance")
    refusal = refused(zoo.ModelInfer, request)
    assert refusal.violations == {
        "outputs[0].name": "is 'log_variance', the outputs of 'plain.encoder' are mean"
    }


def test_models_are_described(zoo: Stub) -> None:
    """Metadata and configuration state the tensors, and the index every graph of every version."""
    metadata = zoo.ModelMetadata(pb.ModelMetadataRequest(name="colour.decoder"), timeout=TIMEOUT_S)
    assert (metadata.name, list(metadata.versions), metadata.platform) == (
        "colour.decoder",
        ["1"],
        "onnxruntime_onnx",
    )
    tensors = [(t.name, t.datatype, list(t.shape)) for t in (*metadata.inputs, *metadata.outputs)]
    assert tensors == [
        ("latent", "FP32", [-1, 6]),
        ("image", "UINT8", [-1, 10, 12, 3]),
        ("pixel_mean", "FP32", [-1, 10, 12, 3]),
    ]
    config = zoo.ModelConfig(pb.ModelConfigRequest(name="colour.decoder"), timeout=TIMEOUT_S).config
    assert [(t.name, t.data_type, list(t.dims)) for t in config.input] == [("latent", pb.TYPE_FP32, [6])]
    assert [(t.name, t.data_type, list(t.dims)) for t in config.output] == [
        ("image", pb.TYPE_UINT8, [10, 12, 3]),
        ("pixel_mean", pb.TYPE_FP32, [10, 12, 3]),
    ]
    assert (config.max_batch_size, config.backend, config.instance_group[0].count) == (
        1024,
        "onnxruntime",
        choose_parallelism(0, 0, device="cpu").lanes,
    )
    assert {key: value.string_value for key, value in config.parameters.items()} == {"precision": "fp32"}
    index = zoo.RepositoryIndex(pb.RepositoryIndexRequest(), timeout=TIMEOUT_S).models
    states = {(model.name, model.version): (model.state, model.reason) for model in index}
    assert states == {
        (f"{name}.{role}", version): ("READY", "") if serving else ("UNAVAILABLE", "not loaded")
        for name, version, serving in (
            ("tiny", "1", False),
            ("tiny", "2", True),
            ("colour", "1", True),
            ("plain", "1", True),
        )
        for role in ("encoder", "decoder")
    }
    ready = zoo.RepositoryIndex(pb.RepositoryIndexRequest(ready=True), timeout=TIMEOUT_S).models
    assert {model.state for model in ready} == {"READY"}
    assert len(ready) == 6
    refusal = refused(zoo.RepositoryIndex, pb.RepositoryIndexRequest(repository_name="other"))
    expected = "is 'other': leave it empty, there is only one repository"
    assert refusal.violations == {"repository_name": expected}


@pytest.mark.usefixtures("each_front")
def test_statistics_count_runs_and_answers(tiny_root: Path) -> None:
    """Rows, batches and answers are counted by graph; runs for native calls are runs too, not answers."""
    with serving(tiny_root) as server, inference_stub(server.target) as stub:
        for _ in range(3):
            stub.ModelInfer(encode_request(), timeout=TIMEOUT_S)
        refused(stub.ModelInfer, encode_request(IMAGES[:, :4]))
        with stub_of(server.target) as native:
            native.Encode(vae_pb2.EncodeRequest(pixels=pixels(IMAGES)), timeout=TIMEOUT_S)
        (encoder, decoder) = stub.ModelStatistics(pb.ModelStatisticsRequest(), timeout=TIMEOUT_S).model_stats
        (alone,) = stub.ModelStatistics(
            pb.ModelStatisticsRequest(name="tiny.encoder", version="1"), timeout=TIMEOUT_S
        ).model_stats
    assert (encoder.name, encoder.version, decoder.name) == ("tiny.encoder", "1", "tiny.decoder")
    assert encoder == alone
    assert (encoder.inference_count, encoder.execution_count) == (12, 4)
    stats = encoder.inference_stats
    assert (stats.success.count, stats.fail.count, stats.queue.count, stats.compute_infer.count) == (
        3,
        1,
        4,
        4,
    )
    assert stats.success.ns > 0
    assert [(b.batch_size, b.compute_infer.count) for b in encoder.batch_stats] == [(3, 4)]
    assert abs(encoder.last_inference - time.time() * 1000) < 60_000
    assert (decoder.inference_count, decoder.last_inference, len(decoder.batch_stats)) == (0, 0, 0)


def test_every_run_of_a_decoder_is_counted(tiny_root: Path) -> None:
    """Images alone, images with pixel means, and the decoder's part of scores are runs of one graph."""
    with serving(tiny_root) as server, inference_stub(server.target) as stub:
        images_alone = decode_request()
        images_alone.outputs.add(name="image")
        asked = pb.ModelStatisticsRequest(name="tiny.decoder")
        counts = []
        with stub_of(server.target) as native:
            score = vae_pb2.ScoreRequest(pixels=pixels(IMAGES))
            for call in (
                lambda: stub.ModelInfer(images_alone, timeout=TIMEOUT_S),
                lambda: stub.ModelInfer(decode_request(), timeout=TIMEOUT_S),
                lambda: native.Score(score, timeout=TIMEOUT_S),
            ):
                call()
                (found,) = stub.ModelStatistics(asked, timeout=TIMEOUT_S).model_stats
                counts.append((found.inference_count, found.execution_count))
    assert counts == [(2, 1), (4, 2), (7, 3)]
    assert [(b.batch_size, b.compute_infer.count) for b in found.batch_stats] == [(2, 2), (3, 1)]


@pytest.mark.usefixtures("each_front")
def test_calls_are_counted_and_logged(tiny_root: Path) -> None:
    """Metrics and log know these calls by their methods, a stream's requests each by an id of its own."""
    with serving(tiny_root) as server, inference_stub(server.target) as stub:
        metadata = (("x-request-id", "call-7"),)
        stub.ModelInfer(encode_request(), timeout=TIMEOUT_S, metadata=metadata)
        stream = stub.ModelStreamInfer(iter([encode_request()] * 2), timeout=TIMEOUT_S, metadata=metadata)
        assert len(list(stream)) == 2
        assert dict(stream.trailing_metadata())["x-request-id"] == "call-7"
        refused(stub.ModelInfer, pb.ModelInferRequest(model_name="tiny.encoder"))
        text = server.metrics_page()
    lines = server.messages("call")
    assert 'convvae_calls_total{code="OK",method="ModelInfer"} 1.0' in text
    assert 'convvae_calls_total{code="INVALID_ARGUMENT",method="ModelInfer"} 1.0' in text
    assert 'convvae_rows_total{method="ModelStreamInfer"} 6.0' in text
    assert "convvae_calls_in_flight 0.0" in text
    seen = [(x["method"], x["request_id"], x["code"], x["model"], x["version"], x["rows"]) for x in lines[:3]]
    assert seen == [
        ("ModelInfer", "call-7", "OK", "tiny", 1, 3),
        ("ModelStreamInfer", "call-7.1", "OK", "tiny", 1, 3),
        ("ModelStreamInfer", "call-7.2", "OK", "tiny", 1, 3),
    ]


def test_a_stream_answers_in_order_and_outlives_errors(stub: Stub) -> None:
    """Fifty requests, each fifth one bad: each is answered in its turn, with its id."""

    def requests() -> Iterator[pb.ModelInferRequest]:
        for number in range(50):
            request = encode_request(IMAGES[: 1 + number % 3], id=f"n{number}")
            if number % 5 == 4:
                request.model_version = "8"
            yield request

    metadata = (("x-request-id", "flow"),)
    replies = list(stub.ModelStreamInfer(requests(), timeout=TIMEOUT_S, metadata=metadata))
    assert [reply.infer_response.id for reply in replies] == [f"n{number}" for number in range(50)]
    for number, reply in enumerate(replies):
        if number % 5 == 4:
            assert reply.error_message == (
                "NOT_FOUND: model 'tiny' has no version 8: ListModels lists its versions"
                f" (request id flow.{number + 1})"
            )
            assert not reply.infer_response.outputs
        else:
            assert reply.error_message == ""
            assert outputs(reply.infer_response)["mean"].shape == (1 + number % 3, LATENT_DIM)
