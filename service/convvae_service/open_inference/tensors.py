"""Tensors of the Open Inference Protocol: requests as checked arrays, results as raw bytes.

Values are little-endian and row-major. A request has them raw, in `raw_input_contents`, or typed, in
`contents`. A reply has them raw.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convvae_service.calls.waiting import wait
from convvae_service.errors import InvalidInput, Violation
from convvae_service.open_inference.graphs import GraphModel, GraphTensor
from open_inference import inference_pb2 as pb

__all__ = ["read_input", "requested_outputs", "write_outputs"]

_DTYPES: dict[str, np.dtype[Any]] = {"UINT8": np.dtype(np.uint8), "FP32": np.dtype("<f4")}
_TYPED_FIELDS = {"UINT8": "uint_contents", "FP32": "fp32_contents"}
# The values of a protobuf list become Python objects first, which is slow: a worker does it for more of them.
_MAX_VALUES_AT_ONCE = 1 << 12
# Python objects of all values at once would take much memory.
_CHUNK_VALUES = 1 << 16
_MAX_SHOWN_SIZES = 8
_REFUSED_PARAMETERS = {
    "shared_memory_region": "send values in the message",
    "classification": "the outputs are not classes",
}


def requested_outputs(request: pb.ModelInferRequest, *, graph: GraphModel) -> tuple[GraphTensor, ...]:
    """Return the outputs that a request names, in its order, or all outputs if it names none.

    Raises:
        InvalidInput: An output does not exist, is named twice, or has a parameter that is not supported.
    """
    names = [tensor.name for tensor in graph.outputs]
    # Count before copying: a message has room for millions of empty outputs.
    if len(request.outputs) > len(names):
        raise _wrong("outputs", f"has {len(request.outputs)} entries, {graph.name!r} has {', '.join(names)}")
    found: dict[str, GraphTensor] = {}
    for index, output in enumerate(request.outputs):
        field = f"outputs[{index}]"
        if output.name not in names:
            raise _wrong(
                f"{field}.name",
                f"is {output.name[:64]!r}, the outputs of {graph.name!r} are {', '.join(names)}",
            )
        if output.name in found:
            raise _wrong(f"{field}.name", f"is {output.name!r} for the second time: name it once")
        _check_parameters(field, output.parameters)
        found[output.name] = graph.outputs[names.index(output.name)]
    return tuple(found.values()) or graph.outputs


async def read_input(
    request: pb.ModelInferRequest,
    *,
    graph: GraphModel,
    max_rows: int,
    workers: Executor,
) -> NDArray[Any]:
    """Return the values of the graph's one input, checked. `workers` convert long lists of typed values.

    Raises:
        InvalidInput: The input is not the graph's, or its values do not fit its shape and datatype.
    """
    expected = graph.input
    given = _only_input(request, graph)
    _check_parameters("inputs[0]", given.parameters)
    shape = _checked_shape(given.shape, expected, max_rows)
    typed = given.HasField("contents")
    if typed and request.raw_input_contents:
        raise _wrong("inputs[0].contents", "is set, and so is raw_input_contents: send one of the two")
    if typed:
        convert = partial(_typed, given.contents, expected, shape)
        small = shape[0] * expected.row_values <= _MAX_VALUES_AT_ONCE
        values = convert() if small else await wait(workers.submit(convert))
    else:
        values = _raw(request, expected, shape)
    if expected.datatype == "FP32":
        bad_rows = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(bad_rows):
            raise InvalidInput(
                [Violation(f"{expected.name}[{row}]", "has NaN or infinite values") for row in bad_rows]
            )
        return values.astype(np.float32, copy=False)
    return values


def write_outputs(
    reply: pb.ModelInferResponse, outputs: Sequence[GraphTensor], results: Mapping[str, NDArray[Any]]
) -> None:
    """Add outputs and their raw values to a reply. `results` has an array for each output, by name."""
    for tensor in outputs:
        values = results[tensor.name]
        reply.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=values.shape)
        reply.raw_output_contents.append(values.astype(_DTYPES[tensor.datatype], copy=False).tobytes())


def _only_input(request: pb.ModelInferRequest, graph: GraphModel) -> pb.ModelInferRequest.InferInputTensor:
    """Return the input of a request if it is the one that the graph has."""
    expected = graph.input
    if len(request.inputs) != 1:
        raise _wrong(
            "inputs", f"has {len(request.inputs)} tensors, {graph.name!r} takes one: {expected.name!r}"
        )
    given = request.inputs[0]
    if given.name != expected.name:
        raise _wrong(
            "inputs[0].name", f"is {given.name[:64]!r}, the input of {graph.name!r} is {expected.name!r}"
        )
    if given.datatype != expected.datatype:
        raise _wrong(
            "inputs[0].datatype",
            f"of {expected.name!r} is {given.datatype[:64]!r}, not {expected.datatype!r}",
        )
    return given


def _check_parameters(field: str, parameters: Mapping[str, pb.InferParameter]) -> None:
    """Refuse parameters that change where values are or what they mean. Others are ignored."""
    for key, reason in _REFUSED_PARAMETERS.items():
        if key in parameters:
            raise _wrong(f"{field}.parameters[{key}]", f"is not supported: {reason}")


def _checked_shape(given: Sequence[int], expected: GraphTensor, max_rows: int) -> tuple[int, ...]:
    field = "inputs[0].shape"
    rank = 1 + len(expected.sizes)
    if len(given) != rank or tuple(given[1:]) != expected.sizes:
        shown = ", ".join(map(str, given[:_MAX_SHOWN_SIZES])) + (
            ", …" if len(given) > _MAX_SHOWN_SIZES else ""
        )
        raise _wrong(field, f"of {expected.name!r} is [{shown}], not {[-1, *expected.sizes]}")
    rows = given[0]
    if rows < 1:
        raise _wrong(field, f"of {expected.name!r} has the batch size {rows}: send 1 or more rows")
    if rows > max_rows:
        raise _wrong(
            field,
            f"of {expected.name!r}: {rows} rows are more than the {max_rows} rows of one call with these"
            " outputs",
        )
    return (rows, *expected.sizes)


def _raw(request: pb.ModelInferRequest, expected: GraphTensor, shape: tuple[int, ...]) -> NDArray[Any]:
    entries = len(request.raw_input_contents)
    if not entries:
        raise _wrong(
            "inputs[0].contents",
            f"of {expected.name!r} is missing, and so is raw_input_contents: send one of the two",
        )
    if entries > 1:
        raise _wrong("raw_input_contents", f"has {entries} entries for one input, {expected.name!r}")
    data = request.raw_input_contents[0]
    num_bytes = shape[0] * expected.row_bytes
    if len(data) != num_bytes:
        raise _wrong(
            "raw_input_contents[0]",
            f"of {expected.name!r} has {len(data)} bytes, {expected.datatype} {list(shape)} has {num_bytes}",
        )
    return np.frombuffer(data, _DTYPES[expected.datatype]).reshape(shape)


def _typed(contents: pb.InferTensorContents, expected: GraphTensor, shape: tuple[int, ...]) -> NDArray[Any]:
    name = _TYPED_FIELDS[expected.datatype]
    field = f"inputs[0].contents.{name}"
    others = [descriptor.name for descriptor, _ in contents.ListFields() if descriptor.name != name]
    if others:
        raise _wrong(
            f"inputs[0].contents.{others[0]}",
            f"of {expected.name!r} is set, but {expected.datatype} values belong in {name}",
        )
    given: Sequence[float] = getattr(contents, name)
    num_values = shape[0] * expected.row_values
    if len(given) != num_values:
        raise _wrong(
            field, f"of {expected.name!r} has {len(given)} values, shape {list(shape)} has {num_values}"
        )
    values = np.empty(num_values, _DTYPES[expected.datatype])
    for start in range(0, num_values, _CHUNK_VALUES):
        chunk = np.array(given[start : start + _CHUNK_VALUES])
        if expected.datatype == "UINT8" and chunk.max() > 255:
            index = start + int(np.argmax(chunk > 255))
            raise _wrong(
                f"{field}[{index}]", f"of {expected.name!r} is {given[index]}, the maximum of UINT8 is 255"
            )
        values[start : start + _CHUNK_VALUES] = chunk
    return values.reshape(shape)


def _wrong(field: str, description: str) -> InvalidInput:
    return InvalidInput([Violation(field, description)])
