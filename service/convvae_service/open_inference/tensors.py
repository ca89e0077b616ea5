"""Tensors of the Open Inference Protocol: requests to checked arrays, results to raw bytes.

Values are little-endian and row-major. A request has them either raw, in `raw_input_contents`, or typed, in
`contents`; a reply always raw.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convvae_service.errors import InvalidInput, Violation
from convvae_service.open_inference.graphs import GraphModel, GraphTensor
from open_inference import inference_pb2 as pb

__all__ = ["read_input", "requested_outputs", "write_outputs"]

_DTYPES: dict[str, np.dtype[Any]] = {"UINT8": np.dtype(np.uint8), "FP32": np.dtype("<f4")}
_TYPED_FIELDS = {"UINT8": "uint_contents", "FP32": "fp32_contents"}
# The values of a protobuf list become Python objects on the way: other calls get a turn between pieces.
_PIECE = 1 << 16
_MAX_SHOWN_SIZES = 8
_REFUSED_PARAMETERS = {
    "shared_memory_region": "values travel in the messages",
    "classification": "the outputs are no classes",
}


def requested_outputs(request: pb.ModelInferRequest, *, graph: GraphModel) -> tuple[GraphTensor, ...]:
    """Return the outputs that a request asks for, in its order; all where it names none.

    Raises:
        InvalidInput: The model lacks an output, one is named twice, or its values are wanted elsewhere.
    """
    names = [tensor.name for tensor in graph.outputs]
    # Counted before they are copied: a message holds millions of empty ones.
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
            raise _wrong(f"{field}.name", f"is {output.name!r} a second time: ask for it once")
        _check_parameters(field, output.parameters)
        found[output.name] = graph.outputs[names.index(output.name)]
    return tuple(found.values()) or graph.outputs


async def read_input(
    request: pb.ModelInferRequest, *, graph: GraphModel, max_rows: int, max_message_bytes: int
) -> NDArray[Any]:
    """Return the values of the model's one input, checked.

    Raises:
        InvalidInput: The input is not the model's, or the values do not fit its shape and datatype.
    """
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
    _check_parameters("inputs[0]", given.parameters)
    shape = _checked_shape(given.shape, expected, max_rows)
    if (size := request.ByteSize()) > max_message_bytes:
        raise _wrong(
            "inputs", f"come in a message of {size} bytes, above the {max_message_bytes} of one call"
        )
    typed = given.HasField("contents")
    if typed and request.raw_input_contents:
        raise _wrong("inputs[0].contents", "is set, and raw_input_contents too: send one of the two")
    values = await _typed(given.contents, expected, shape) if typed else _raw(request, expected, shape)
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
    """Add outputs and their raw values to a reply."""
    for tensor in outputs:
        values = results[tensor.name]
        reply.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=values.shape)
        reply.raw_output_contents.append(values.astype(_DTYPES[tensor.datatype], copy=False).tobytes())


def _check_parameters(field: str, parameters: Mapping[str, pb.InferParameter]) -> None:
    """Refuse what would change where values are or what they mean; other parameters are ignored."""
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
        raise _wrong(
            field, f"of {expected.name!r} has {rows} as its first size, the batch: send 1 or more rows"
        )
    if rows > max_rows:
        raise _wrong(
            field, f"of {expected.name!r}: {rows} rows are more than the {max_rows} rows of one such call"
        )
    return (rows, *expected.sizes)


def _raw(request: pb.ModelInferRequest, expected: GraphTensor, shape: tuple[int, ...]) -> NDArray[Any]:
    entries = len(request.raw_input_contents)
    if not entries:
        raise _wrong(
            "inputs[0].contents",
            f"of {expected.name!r} is absent, and raw_input_contents too: send one of the two",
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


async def _typed(
    contents: pb.InferTensorContents, expected: GraphTensor, shape: tuple[int, ...]
) -> NDArray[Any]:
    name = _TYPED_FIELDS[expected.datatype]
    field = f"inputs[0].contents.{name}"
    others = [descriptor.name for descriptor, _ in contents.ListFields() if descriptor.name != name]
    if others:
        raise _wrong(
            f"inputs[0].contents.{others[0]}",
            f"of {expected.name!r} is set, {expected.datatype} stands in {name}",
        )
    given: Sequence[float] = getattr(contents, name)
    num_values = shape[0] * expected.row_values
    if len(given) != num_values:
        raise _wrong(
            field, f"of {expected.name!r} has {len(given)} values, shape {list(shape)} has {num_values}"
        )
    values = np.empty(num_values, _DTYPES[expected.datatype])
    for start in range(0, num_values, _PIECE):
        piece = np.array(given[start : start + _PIECE])
        if expected.datatype == "UINT8" and piece.max() > 255:
            index = start + int(np.argmax(piece > 255))
            raise _wrong(f"{field}[{index}]", f"of {expected.name!r} is {given[index]}, UINT8 ends at 255")
        values[start : start + _PIECE] = piece
        await asyncio.sleep(0)
    return values.reshape(shape)


def _wrong(field: str, description: str) -> InvalidInput:
    return InvalidInput([Violation(field, description)])
