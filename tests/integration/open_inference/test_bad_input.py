"""Bad requests of the Open Inference Protocol over the wire: code, field and message of each."""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from open_inference import inference_pb2 as pb
from support.inference_wire import Stub, decode_request, encode_request
from support.tiny_bundle import LATENT_DIM
from support.wire import TIMEOUT_S, refused


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
    "same-input-twice": (
        lambda request: request.inputs.append(request.inputs[0]),
        "inputs",
        "has 2 tensors, 'tiny.encoder' takes one: 'image'",
    ),
    "two-inputs": (_change(inputs=1), "inputs", "has 2 tensors, 'tiny.encoder' takes one: 'image'"),
    "name": (_change(name="x"), "inputs[0].name", "is 'x', the input of 'tiny.encoder' is 'image'"),
    "datatype": (_change(datatype="FP32"), "inputs[0].datatype", "of 'image' is 'FP32', not 'UINT8'"),
    "small-datatype": (
        _change(datatype="uint8"),
        "inputs[0].datatype",
        "of 'image' is 'uint8', not 'UINT8'",
    ),
    "no-datatype": (_change(datatype=""), "inputs[0].datatype", "of 'image' is '', not 'UINT8'"),
    "no-shape": (_change(shape=[]), "inputs[0].shape", "of 'image' is [], not [-1, 8, 6, 1]"),
    "overflowing-shape": (
        _change(shape=[2**63 - 1, 2**31, 2**31, 2]),
        "inputs[0].shape",
        f"of 'image' is [{2**63 - 1}, {2**31}, {2**31}, 2], not [-1, 8, 6, 1]",
    ),
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
        "of 'image' has the batch size 0: send 1 or more rows",
    ),
    "negative-rows": (
        _change(shape=[-1, 8, 6, 1]),
        "inputs[0].shape",
        "of 'image' has the batch size -1: send 1 or more rows",
    ),
    "most-negative-rows": (
        _change(shape=[-(2**63), 8, 6, 1]),
        "inputs[0].shape",
        f"of 'image' has the batch size {-(2**63)}: send 1 or more rows",
    ),
    "too-many-rows": (
        _change(shape=[2**62, 8, 6, 1]),
        "inputs[0].shape",
        f"of 'image': {2**62} rows are more than the 1024 rows of one call with these outputs",
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
    "raw-and-an-empty-one": (
        _change(raw=[bytes(144), b""]),
        "raw_input_contents",
        "has 2 entries for one input, 'image'",
    ),
    "an-empty-raw": (
        _change(raw=[b""]),
        "raw_input_contents[0]",
        "of 'image' has 0 bytes, UINT8 [3, 8, 6, 1] has 144",
    ),
    "no-values": (
        _change(raw=NO_RAW),
        "inputs[0].contents",
        "of 'image' is missing, and so is raw_input_contents: send one of the two",
    ),
    "both": (
        _change(contents=pb.InferTensorContents(uint_contents=[1])),
        "inputs[0].contents",
        "is set, and so is raw_input_contents: send one of the two",
    ),
    "typed-short": (
        _change(raw=NO_RAW, contents=pb.InferTensorContents(uint_contents=[1, 2])),
        "inputs[0].contents.uint_contents",
        "of 'image' has 2 values, shape [3, 8, 6, 1] has 144",
    ),
    "typed-elsewhere": (
        _change(raw=NO_RAW, contents=pb.InferTensorContents(int_contents=[1] * 144)),
        "inputs[0].contents.int_contents",
        "of 'image' is set, but UINT8 values belong in uint_contents",
    ),
    "typed-beyond": (
        _change(raw=NO_RAW, contents=pb.InferTensorContents(uint_contents=[255] * 143 + [256])),
        "inputs[0].contents.uint_contents[143]",
        "of 'image' is 256, the maximum of UINT8 is 255",
    ),
    "output": (
        _change(outputs=["mean", "sigma"]),
        "outputs[1].name",
        "is 'sigma', the outputs of 'tiny.encoder' are mean, log_variance",
    ),
    "output-without-a-name": (
        _change(outputs=[""]),
        "outputs[0].name",
        "is '', the outputs of 'tiny.encoder' are mean, log_variance",
    ),
    "output-twice": (
        _change(outputs=["mean", "mean"]),
        "outputs[1].name",
        "is 'mean' for the second time: name it once",
    ),
    "many-outputs": (
        _change(outputs=["mean"] * 3),
        "outputs",
        "has 3 entries, 'tiny.encoder' has mean, log_variance",
    ),
    "version": (
        _change(model_version="newest"),
        "model_version",
        "is 'newest', it must be an integer >= 1, or empty for the default",
    ),
    "version-zero": (
        _change(model_version="0"),
        "model_version",
        "is '0', it must be an integer >= 1, or empty for the default",
    ),
    "timeout": (
        _change(parameters={"timeout": pb.InferParameter(string_param="soon")}),
        "parameters[timeout]",
        "must be an integer >= 0 (microseconds)",
    ),
    "broken-timeout": (
        _change(parameters={"timeout": pb.InferParameter(double_param=1.5)}),
        "parameters[timeout]",
        "must be an integer >= 0 (microseconds)",
    ),
    "empty-timeout": (
        _change(parameters={"timeout": pb.InferParameter()}),
        "parameters[timeout]",
        "must be an integer >= 0 (microseconds)",
    ),
    "negative-timeout": (
        _change(parameters={"timeout": pb.InferParameter(int64_param=-1)}),
        "parameters[timeout]",
        "must be an integer >= 0 (microseconds)",
    ),
    "input-shared-memory": (
        _parameter_of("input", "shared_memory_region"),
        "inputs[0].parameters[shared_memory_region]",
        "is not supported: send values in the message",
    ),
    "output-shared-memory": (
        _parameter_of("output", "shared_memory_region"),
        "outputs[0].parameters[shared_memory_region]",
        "is not supported: send values in the message",
    ),
    "classification": (
        _parameter_of("output", "classification"),
        "outputs[0].parameters[classification]",
        "is not supported: the outputs are not classes",
    ),
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_requests(stub: Stub, fault: str) -> None:
    """A mistake is INVALID_ARGUMENT with the field, the tensor, what was given and what is expected."""
    change, field, description = BAD[fault]
    request = encode_request()
    change(request)
    refusal = refused(stub.ModelInfer, request, metadata=(("x-request-id", "bad-one"),))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.violations == {field: description}
    assert refusal.message == f"{field}: {description}"
    assert refusal.metadata["x-request-id"] == "bad-one"


def test_a_stream_names_what_is_wrong_with_each_bad_request(stub: Stub) -> None:
    """Between good requests of one stream, every bad one is refused by itself, in its turn and in full."""

    def requests() -> Iterator[pb.ModelInferRequest]:
        for fault, (change, _, _) in BAD.items():
            request = encode_request(id=fault)
            change(request)
            yield request
            yield encode_request(id=f"after {fault}")

    metadata = (("x-request-id", "mixed"),)
    replies = list(stub.ModelStreamInfer(requests(), timeout=TIMEOUT_S, metadata=metadata))
    assert len(replies) == 2 * len(BAD)
    for number, (fault, (_, field, description)) in enumerate(BAD.items()):
        bad, good = replies[2 * number : 2 * number + 2]
        assert bad.error_message == (
            f"INVALID_ARGUMENT: {field}: {description} (request id mixed.{2 * number + 1})"
        )
        assert (bad.infer_response.id, len(bad.infer_response.outputs)) == (fault, 0)
        assert (good.error_message, good.infer_response.id) == ("", f"after {fault}")
        assert len(good.infer_response.raw_output_contents) == 2


def test_the_longest_timeout_is_none(stub: Stub) -> None:
    """A request may give itself more time than there is."""
    request = encode_request()
    request.parameters["timeout"].uint64_param = 2**64 - 1
    assert stub.ModelInfer(request, timeout=TIMEOUT_S).outputs


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
        ("", "", grpc.StatusCode.NOT_FOUND, "no model ''"),
        (".encoder", "", grpc.StatusCode.NOT_FOUND, "no model '.encoder'"),
        ("absent", "", grpc.StatusCode.NOT_FOUND, "models are the graphs MODEL.encoder and MODEL.decoder"),
        ("absent.encoder", "", grpc.StatusCode.NOT_FOUND, "no model 'absent.encoder' on this server: models"),
        ("x" * 5000, "", grpc.StatusCode.NOT_FOUND, "no model 'xxx"),
        ("tiny.encoder", "9", grpc.StatusCode.NOT_FOUND, "has no version 9"),
        ("tiny.encoder", "1", grpc.StatusCode.FAILED_PRECONDITION, "published but not loaded"),
        ("tiny.encoder", "-1", grpc.StatusCode.INVALID_ARGUMENT, "is '-1', it must be an integer >= 1"),
        ("tiny.encoder", "٣", grpc.StatusCode.INVALID_ARGUMENT, "it must be an integer >= 1"),
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
