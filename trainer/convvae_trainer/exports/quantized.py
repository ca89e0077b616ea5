"""A graph in 8 bits: static QDQ, per channel, unsigned activations and signed weights.

This is the form that ONNX Runtime's documentation recommends for x86. A processor with VNNI adds products in
32 bits. One with AVX2 alone adds pairs of them in 16 bits, which overflow; weights of 7 bits prevent it, so
that the graph gives the same results on both.
"""

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import onnx
from numpy.typing import NDArray
from onnx import ModelProto

from convvae_trainer.errors import ExportFailed
from convvae_trainer.exports.onnx_runtime import conversion_errors, quantization_tools
from convvae_trainer.exports.rewrite import model_bytes

__all__ = ["KeptLayer", "quantized", "tail"]

# A layer with weights of a graph: its first or its last.
KeptLayer = Literal["first", "last"]

_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_LAYOUT = ("Reshape", "Transpose", "Slice")
_QUANTISED = ("Conv", "Gemm", "MatMul", "Sigmoid", "Mul", "Add", *_LAYOUT)


class _Batches:
    """Batches of one input, in the form of a `CalibrationDataReader` of ONNX Runtime."""

    def __init__(self, name: str, batches: Sequence[NDArray[Any]]) -> None:
        self._feeds: Iterator[dict[str, NDArray[Any]]] = iter([{name: batch} for batch in batches])

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        """Return the next batch by the input's name; None after the last."""
        return next(self._feeds, None)


def quantized(
    model: ModelProto,
    batches: Sequence[NDArray[Any]],
    *,
    kept: Sequence[KeptLayer] = (),
    float_output: bool = False,
    weight_bits: int = 7,
) -> bytes:
    """Return a graph with 8-bit layers.

    Args:
        model: The graph in fp32. Its transposed convolutions stay in fp32.
        batches: Inputs that give each activation its range.
        kept: The layers that stay in fp32.
        float_output: Whether the last layer returns floats, and not 8-bit values.
        weight_bits: Bits of a weight: 7, or 8 for processors with VNNI only.

    Raises:
        ExportFailed: The graph has no layer with weights, or ONNX Runtime cannot quantise it.
        MissingExtra: ONNX Runtime is not installed.
        OSError: The folder for temporary files cannot be written.
    """
    body = _body(model, kept)
    tools = quantization_tools()
    unsigned, signed = tools.QuantType.QUInt8, tools.QuantType.QInt8
    options: dict[str, Any] = {}
    if float_output:
        options["OpTypesToExcludeOutputQuantization"] = ["Gemm", "MatMul"]
    with tempfile.TemporaryDirectory(prefix="convvae-") as folder, _quiet(), conversion_errors("int8"):
        source, target = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, source)
        tools.quantize_static(
            source,
            target,
            _Batches(model.graph.input[0].name, batches),
            quant_format=tools.QuantFormat.QDQ,
            op_types_to_quantize=list(_QUANTISED),
            per_channel=True,
            reduce_range=weight_bits == 7,
            activation_type=unsigned,
            weight_type=signed,
            nodes_to_quantize=body,
            extra_options=options,
        )
        return model_bytes(onnx.load(target))


def tail(model: ModelProto) -> list[str]:
    """Return the names of the nodes after the last layer with weights."""
    weighted = _weighted(model)
    start = weighted[-1] + 1 if weighted else 0
    return [node.name for node in model.graph.node[start:]]


def _weighted(model: ModelProto) -> list[int]:
    return [row for row, node in enumerate(model.graph.node) if node.op_type in _WEIGHTED]


def _body(model: ModelProto, kept: Sequence[KeptLayer]) -> list[str]:
    """Return the names of the nodes to quantise: from the first layer with weights to the last.

    The nodes that only move the last layer's output belong to it.
    """
    nodes, weighted = model.graph.node, _weighted(model)
    if not weighted:
        raise ExportFailed("a graph has no layer with weights to quantise; nothing was published")
    first, last = weighted[0], weighted[-1]
    end = last + 1
    while end < len(nodes) and nodes[end].op_type in _LAYOUT:
        end += 1
    if "last" in kept:
        end = last
    skipped = {first} if "first" in kept else set()
    return [nodes[row].name for row in range(first, end) if row not in skipped]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide advice to run a step that exported graphs do not need."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
