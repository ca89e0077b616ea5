"""The Open Inference Protocol over the wire, with stubs and nothing else."""

import math
import signal
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from convvae.v1 import vae_pb2
from open_inference import inference_pb2 as pb
from open_inference import inference_pb2_grpc
from serving import ServerProcess, serving
from tiny_bundle import LATENT_DIM, SHAPE
from wire import TIMEOUT_S, pixels, random_images, refused, stub_of, unpack, unpack_pixels, vectors

Stub = inference_pb2_grpc.GRPCInferenceServiceStub
IMAGES = random_images(3, *SHAPE.as_tuple)
LATENTS = np.random.default_rng(0).normal(size=(2, LATENT_DIM)).astype(np.float32)


@contextmanager
def inference_stub(target: str) -> Iterator[Stub]:
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(target, options=options) as channel:
        yield Stub(channel)


@pytest.fixture(scope="module")
def stub(tiny_server: ServerProcess) -> Iterator[Stub]:
    with inference_stub(tiny_server.target) as stub:
        yield stub


@pytest.fixture(scope="module")
def zoo(zoo_server: ServerProcess) -> Iterator[Stub]:
    with inference_stub(zoo_server.target) as stub:
        yield stub


def encode_request(images: NDArray[np.uint8] = IMAGES, **fields: Any) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="tiny.encoder", raw_input_contents=[images.tobytes()], **fields)
    request.inputs.add(name="image", datatype="UINT8", shape=images.shape)
    return request


def decode_request(latents: NDArray[np.float32] = LATENTS, **fields: Any) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(
        model_name="tiny.decoder", raw_input_contents=[latents.astype("<f4").tobytes()], **fields
    )
    request.inputs.add(name="latent", datatype="FP32", shape=latents.shape)
    return request


def outputs(reply: pb.ModelInferResponse) -> dict[str, NDArray[Any]]:
    """Return a reply's outputs by name; each has its raw values and no typed ones."""
    assert len(reply.outputs) == len(reply.raw_output_contents)
    assert not any(tensor.HasField("contents") for tensor in reply.outputs)
    dtypes: dict[str, np.dtype[Any]] = {"UINT8": np.dtype(np.uint8), "FP32": np.dtype("<f4")}
    return {
        tensor.name: np.frombuffer(raw, dtypes[tensor.datatype]).reshape(tensor.shape)
        for tensor, raw in zip(reply.outputs, reply.raw_output_contents, strict=True)
    }


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


def _change(**fields: Any) -> Callable[[pb.ModelInferRequest], None]:
    def change(request: pb.ModelInferRequest) -> None:
        for name, value in fields.items():
            if name in ("name", "datatype"):
                setattr(request.inputs[0], name, value)
            elif name == "shape":
                request.inputs[0].shape[:] = value
            elif name == "raw":
                request.raw_input_contents[:] = value
            elif name == "outputs":
                for output in value:
                    request.outputs.add(name=output)
            elif name == "contents":
                request.inputs[0].contents.CopyFrom(value)
            elif name == "inputs":
                for index in range(value):
                    request.inputs.add(name=f"more{index}")
            elif name == "parameters":
                for key, parameter in value.items():
                    request.parameters[key].CopyFrom(parameter)
            else:
                setattr(request, name, value)

    return change


def _parameter_of(kind: str, key: str) -> Callable[[pb.ModelInferRequest], None]:
    def change(request: pb.ModelInferRequest) -> None:
        tensor = request.inputs[0] if kind == "input" else request.outputs.add(name="mean")
        tensor.parameters[key].string_param = "x"

    return change


def _without_inputs(request: pb.ModelInferRequest) -> None:
    request.ClearField("inputs")


NO_RAW: list[bytes] = []
BAD = {
    "no-input": (
        _without_inputs,
        "inputs",
        "has 0 tensors, 'tiny.encoder' takes one: 'image'",
    ),
    "two-inputs": (_change(inputs=1), "inputs", "has 2 tensors, 'tiny.encoder' takes one: 'image'"),
    "name": (_change(name="x"), "inputs[0].name", "is 'x', the input of 'tiny.encoder' is 'image'"),
    "datatype": (_change(datatype="FP32"), "inputs[0].datatype", "of 'image' is 'FP32', not 'UINT8'"),
    "rank": (_change(shape=[3, 48]), "inputs[0].shape", "of 'image' is [3, 48], not [-1, 8, 6, 1]"),
    "size": (
        _change(shape=[3, 8, 7, 1]),
        "inputs[0].shape",
        "of 'image' is [3, 8, 7, 1], not [-1, 8, 6, 1]",
    ),
    "long-shape": (
        _change(shape=[1] * 100_000),
        "inputs[0].shape",
        "of 'image' is [1, 1, 1, 1, 1, 1, 1, 1, …], not [-1, 8, 6, 1]",
    ),
    "no-rows": (
        _change(shape=[0, 8, 6, 1], raw=[b""]),
        "inputs[0].shape",
        "of 'image' has 0 as its first size, the batch: send 1 or more rows",
    ),
    "negative-rows": (
        _change(shape=[-1, 8, 6, 1]),
        "inputs[0].shape",
        "of 'image' has -1 as its first size, the batch: send 1 or more rows",
    ),
    "too-many-rows": (
        _change(shape=[2**62, 8, 6, 1]),
        "inputs[0].shape",
        f"of 'image': {2**62} rows are more than the 1024 rows of one such call",
    ),
    "short": (
        _change(raw=[b"123"]),
        "raw_input_contents[0]",
        "of 'image' has 3 bytes, UINT8 [3, 8, 6, 1] has 144",
    ),
    "long": (
        _change(raw=[bytes(145)]),
        "raw_input_contents[0]",
        "of 'image' has 145 bytes, UINT8 [3, 8, 6, 1] has 144",
    ),
    "two-raw": (
        _change(raw=[bytes(144)] * 2),
        "raw_input_contents",
        "has 2 entries for one input, 'image'",
    ),
    "no-values": (
        _change(raw=NO_RAW),
        "inputs[0].contents",
        "of 'image' is absent, and raw_input_contents too: send one of the two",
    ),
    "both": (
        _change(contents=pb.InferTensorContents(uint_contents=[1])),
        "inputs[0].contents",
        "is set, and raw_input_contents too: send one of the two",
    ),
    "typed-short": (
        _change(raw=NO_RAW, contents=pb.InferTensorContents(uint_contents=[1, 2])),
        "inputs[0].contents.uint_contents",
        "of 'image' has 2 values, shape [3, 8, 6, 1] has 144",
    ),
    "typed-elsewhere": (
        _change(raw=NO_RAW, contents=pb.InferTensorContents(int_contents=[1] * 144)),
        "inputs[0].contents.int_contents",
        "of 'image' is set, UINT8 stands in uint_contents",
    ),
    "typed-beyond": (
        _change(raw=NO_RAW, contents=pb.InferTensorContents(uint_contents=[255] * 143 + [256])),
        "inputs[0].contents.uint_contents[143]",
        "of 'image' is 256, UINT8 ends at 255",
    ),
    "output": (
        _change(outputs=["mean", "sigma"]),
        "outputs[1].name",
        "is 'sigma', the outputs of 'tiny.encoder' are mean, log_variance",
    ),
    "output-twice": (
        _change(outputs=["mean", "mean"]),
        "outputs[1].name",
        "is 'mean' a second time: ask for it once",
    ),
    "many-outputs": (
        _change(outputs=["mean"] * 3),
        "outputs",
        "has 3 entries, 'tiny.encoder' has mean, log_variance",
    ),
    "version": (
        _change(model_version="newest"),
        "model_version",
        "is 'newest': a whole number from 1 on, or empty for the default",
    ),
    "version-zero": (
        _change(model_version="0"),
        "model_version",
        "is '0': a whole number from 1 on, or empty for the default",
    ),
    "timeout": (
        _change(parameters={"timeout": pb.InferParameter(string_param="soon")}),
        "parameters[timeout]",
        "is no number of microseconds from 0 on",
    ),
    "negative-timeout": (
        _change(parameters={"timeout": pb.InferParameter(int64_param=-1)}),
        "parameters[timeout]",
        "is no number of microseconds from 0 on",
    ),
    "input-shared-memory": (
        _parameter_of("input", "shared_memory_region"),
        "inputs[0].parameters[shared_memory_region]",
        "is not supported: values travel in the messages",
    ),
    "output-shared-memory": (
        _parameter_of("output", "shared_memory_region"),
        "outputs[0].parameters[shared_memory_region]",
        "is not supported: values travel in the messages",
    ),
    "classification": (
        _parameter_of("output", "classification"),
        "outputs[0].parameters[classification]",
        "is not supported: the outputs are no classes",
    ),
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_requests(stub: Stub, fault: str) -> None:
    """What is wrong is INVALID_ARGUMENT with the field, the tensor, what was given and what is expected."""
    change, field, description = BAD[fault]
    request = encode_request()
    change(request)
    refusal = refused(stub.ModelInfer, request, metadata=(("x-request-id", "bad-one"),))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.violations == {field: description}
    assert refusal.message == f"{field}: {description}"
    assert refusal.metadata["x-request-id"] == "bad-one"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_latents_must_be_finite(stub: Stub, value: float) -> None:
    """Each row with a value that is no number is listed."""
    latents = np.zeros((4, LATENT_DIM), np.float32)
    latents[1, 2] = latents[3, 0] = value
    refusal = refused(stub.ModelInfer, decode_request(latents))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.violations == dict.fromkeys(("latent[1]", "latent[3]"), "has NaN or infinite values")


def test_millions_of_empty_tensors_are_counted_alone(stub: Stub) -> None:
    """A message full of empty inputs or outputs is refused at once."""
    for kind in ("inputs", "outputs"):
        request = encode_request()
        # Field 5 or 6 with an empty message, written by hand: the Python objects would take minutes.
        data = request.SerializeToString() + {"inputs": b"\x2a\x00", "outputs": b"\x32\x00"}[kind] * 3_000_000
        request = pb.ModelInferRequest.FromString(data)
        started_s = time.monotonic()
        refusal = refused(stub.ModelInfer, request)
        assert time.monotonic() - started_s < 5
        assert refusal.violations.keys() == {kind}


@pytest.mark.parametrize(
    ("name", "version", "code", "message"),
    [
        ("tiny", "", grpc.StatusCode.NOT_FOUND, "models are the graphs MODEL.encoder and MODEL.decoder"),
        ("", "", grpc.StatusCode.NOT_FOUND, "no model ''"),
        (".encoder", "", grpc.StatusCode.NOT_FOUND, "no model '.encoder'"),
        ("absent.encoder", "", grpc.StatusCode.NOT_FOUND, "no model 'absent.encoder' here: RepositoryIndex"),
        ("x" * 5000, "", grpc.StatusCode.NOT_FOUND, "no model 'xxx"),
        ("tiny.encoder", "9", grpc.StatusCode.NOT_FOUND, "has no version 9"),
        ("tiny.encoder", "1", grpc.StatusCode.FAILED_PRECONDITION, "published but not loaded"),
        ("tiny.encoder", "-1", grpc.StatusCode.INVALID_ARGUMENT, "is '-1': a whole number from 1 on"),
        ("tiny.encoder", "٣", grpc.StatusCode.INVALID_ARGUMENT, "a whole number from 1 on"),
    ],
)
def test_models_that_are_not_there(
    zoo: Stub, name: str, version: str, code: grpc.StatusCode, message: str
) -> None:
    """Names and versions fail as in the native API, in every call that takes them."""
    infer = encode_request(model_version=version)
    infer.model_name = name
    for call, request in (
        (zoo.ModelInfer, infer),
        (zoo.ModelMetadata, pb.ModelMetadataRequest(name=name, version=version)),
        (zoo.ModelConfig, pb.ModelConfigRequest(name=name, version=version)),
        # Without a name it is asked for all models.
        (zoo.ModelStatistics, pb.ModelStatisticsRequest(name=name or "-", version=version)),
    ):
        refusal = refused(call, request)
        assert refusal.code is code
        assert message.replace("''", "'-'" if call is zoo.ModelStatistics else "''") in refusal.message
    assert not zoo.ModelReady(pb.ModelReadyRequest(name=name, version=version), timeout=TIMEOUT_S).ready


def test_versions_can_be_pinned(zoo: Stub) -> None:
    """A request for the version that serves is answered by it, as one without a version is."""
    for version in ("", "2"):
        reply = zoo.ModelInfer(encode_request(model_version=version), timeout=TIMEOUT_S)
        assert reply.model_version == "2"
        assert zoo.ModelReady(pb.ModelReadyRequest(name="tiny.encoder", version=version)).ready


def test_versions_side_by_side(zoo_root: Path) -> None:
    """Of several loaded versions each answers when it is asked for; description and statistics know both."""
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
    assert (config.max_batch_size, config.backend, config.instance_group[0].count) == (1024, "onnxruntime", 1)
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
    assert refusal.violations == {"repository_name": "is 'other': leave it empty, there is one repository"}


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


def test_calls_are_counted_and_logged(tiny_root: Path) -> None:
    """Metrics and log know these calls by their methods, a stream's requests each by an id of its own."""
    with serving(tiny_root) as server, inference_stub(server.target) as stub:
        metadata = (("x-request-id", "call-7"),)
        stub.ModelInfer(encode_request(), timeout=TIMEOUT_S, metadata=metadata)
        stream = stub.ModelStreamInfer(iter([encode_request()] * 2), timeout=TIMEOUT_S, metadata=metadata)
        assert len(list(stream)) == 2
        assert dict(stream.trailing_metadata())["x-request-id"] == "call-7"
        refused(stub.ModelInfer, pb.ModelInferRequest(model_name="tiny.encoder"))
        with urllib.request.urlopen(f"http://{server.metrics_target}/metrics", timeout=5) as page:
            text = page.read().decode()
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
                "NOT_FOUND: model 'tiny' has no version 8: ListModels names those there are"
                f" (request id flow.{number + 1})"
            )
            assert not reply.infer_response.outputs
        else:
            assert reply.error_message == ""
            assert outputs(reply.infer_response)["mean"].shape == (1 + number % 3, LATENT_DIM)


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
            "inputs[0].shape": "of 'latent': 1024 rows are more than the 374 rows of one such call"
        }
        config = stub.ModelConfig(pb.ModelConfigRequest(name="tiny.decoder"), timeout=TIMEOUT_S).config
        assert config.max_batch_size == 374
        reply = stub.ModelInfer(decode_request(latents[:374]), timeout=TIMEOUT_S)
        assert reply.ByteSize() <= 100_000
        # Of images alone as many as of the native API.
        request.outputs.add(name="image")
        request.inputs[0].shape[0] = 2000
        assert "more than the 1024 rows" in refused(stub.ModelInfer, request).message


def test_a_message_above_the_limit_is_refused_by_the_service(tiny_root: Path) -> None:
    """What swells a message without being rows is INVALID_ARGUMENT, with the limit."""
    request = encode_request()
    request.parameters["ballast"].string_param = "x" * 70_000
    with (
        serving(tiny_root, "--max-message-bytes", "65536") as server,
        inference_stub(server.target) as stub,
    ):
        refusal = refused(stub.ModelInfer, request)
    assert refusal.violations.keys() == {"inputs"}
    assert "above the 65536 of one call" in refusal.message


def in_flight(server: ServerProcess) -> float:
    with urllib.request.urlopen(f"http://{server.metrics_target}/metrics", timeout=5) as page:
        (line,) = (x for x in page.read().decode().splitlines() if x.startswith("convvae_calls_in_flight "))
    return float(line.split()[1])


def wait_until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


MANY = np.zeros((1000, *SHAPE.as_tuple), np.uint8)


def test_a_full_queue_says_when_to_come_back(tiny_root: Path) -> None:
    """The queue's limits hold for both APIs together; on a stream the status stands in the message."""
    flags = ("--max-batch-rows", "1", "--max-queued-rows", "1024")
    with (
        serving(tiny_root, *flags) as server,
        inference_stub(server.target) as stub,
        stub_of(server.target) as native,
    ):
        busy = native.Score.future(vae_pb2.ScoreRequest(pixels=pixels(MANY)), timeout=TIMEOUT_S)
        wait_until(lambda: in_flight(server) == 1)
        refusal = refused(stub.ModelInfer, encode_request(MANY))
        (reply,) = stub.ModelStreamInfer(iter([encode_request(MANY)]), timeout=TIMEOUT_S)
        busy.cancel()
    assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (refusal.reason, refusal.retry_delay_s) == ("QUEUE_FULL", 0.1)
    assert reply.error_message.startswith("RESOURCE_EXHAUSTED: the server's queue is full")


def test_cancelled_and_expired_calls_leave_nothing_behind(tiny_root: Path) -> None:
    """A caller that leaves, a deadline, the request's own timeout, a stream cut off: all work is given up."""
    with (
        serving(tiny_root, "--max-batch-rows", "1", "--log-level", "info") as server,
        inference_stub(server.target) as stub,
    ):
        call = stub.ModelInfer.future(encode_request(MANY), timeout=TIMEOUT_S)
        wait_until(lambda: in_flight(server) == 1)
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
        wait_until(lambda: in_flight(server) == 0)
        assert outputs(stub.ModelInfer(encode_request(), timeout=TIMEOUT_S))["mean"].shape == (3, LATENT_DIM)
        assert server.messages("internal error") == []
        assert server.noise == []


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
        assert list(stream) == []
        assert stream.code() is grpc.StatusCode.OK
        closing.set()
        assert server.wait() == 0


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


def test_it_can_be_switched_off(tiny_root: Path) -> None:
    """With `--no-open-inference` the server knows the native API alone."""
    with serving(tiny_root, "--no-open-inference") as server, inference_stub(server.target) as stub:
        refusal = refused(stub.ServerLive, pb.ServerLiveRequest())
        assert refusal.code is grpc.StatusCode.UNIMPLEMENTED
        with stub_of(server.target) as native:
            assert native.Sample(vae_pb2.SampleRequest(count=1), timeout=TIMEOUT_S).images.count == 1


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
