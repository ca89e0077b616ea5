"""A graph in 16-bit floats, for GPUs. ONNX Runtime's kernels for the CPU compute it in fp32."""

import onnx
from onnx import ModelProto, NodeProto

from convvae_trainer.exports.onnx_runtime import conversion_errors, half_converter
from convvae_trainer.exports.quantized import tail
from convvae_trainer.exports.rewrite import model_bytes

__all__ = ["halved"]


def halved(graph: bytes) -> bytes:
    """Return the graph `graph` with 16-bit weights and layers. Inputs and outputs keep their types.

    The nodes after the last layer stay in fp32, since 16 bits would round the levels of pixels.

    Raises:
        ExportFailed: ONNX Runtime cannot convert the graph.
        MissingExtra: ONNX Runtime is not installed.
    """
    model = onnx.load_from_string(graph)
    convert = half_converter()
    with conversion_errors("fp16"):
        half = convert(model, keep_io_types=True, node_block_list=tail(model))
        _sort(half)
        return model_bytes(half)


def _sort(model: ModelProto) -> None:
    """Put each node after those whose outputs it reads: the conversion adds its nodes at the end."""
    graph = model.graph
    waiting = list(graph.node)
    known = {"", *(value.name for value in graph.input), *(tensor.name for tensor in graph.initializer)}
    ordered: list[NodeProto] = []
    while waiting:
        ready = [node for node in waiting if known.issuperset(node.input)]
        assert ready
        known.update(output for node in ready for output in node.output)
        ordered += ready
        waiting = [node for node in waiting if node not in ready]
    del graph.node[:]
    graph.node.extend(ordered)
    # The conversion leaves the types of some tensors as they were.
    del graph.value_info[:]
