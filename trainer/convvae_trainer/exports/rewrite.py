"""The rewriting of an ONNX graph, node by node: nodes are kept, or replaced by others."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference

from convvae_trainer.exports.graphs import strip

__all__ = ["Rewrite", "attributes_of", "model_bytes"]


class Rewrite:
    """A new graph that is built while the nodes of an old one are read.

    Attributes:
        nodes: The nodes of the old graph, in order.
        weights: The initializers of the old graph, by name.
    """

    def __init__(self, model: ModelProto) -> None:
        self._model = shape_inference.infer_shapes(model)
        graph = self._model.graph
        self.nodes: list[NodeProto] = list(graph.node)
        self.weights: dict[str, NDArray[Any]] = {
            tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer
        }
        self._shapes = {
            value.name: tuple(size.dim_value for size in value.type.tensor_type.shape.dim)
            for value in (*graph.input, *graph.value_info, *graph.output)
        }
        self._new_nodes: list[NodeProto] = []
        self._constants: list[TensorProto] = []

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor, with 0 for the batch; () if it is unknown."""
        return self._shapes.get(name, ())

    def keep(self, node: NodeProto) -> None:
        """Take a node over as it is."""
        self._new_nodes.append(node)

    def constant(self, value: NDArray[Any] | Sequence[int]) -> str:
        """Add an initializer, and return its name. Integers become int64."""
        array = np.array(value, order="C") if isinstance(value, np.ndarray) else np.array(value, np.int64)
        name = f"rewritten_constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(array, name))
        return name

    def add(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Add a node with one output, and return the output's name. "" makes a new name."""
        name = f"rewritten_{operator}_{len(self._new_nodes)}"
        output = output or f"{name}_output"
        self._new_nodes.append(helper.make_node(operator, inputs, [output], name=name, **attributes))
        return output

    def result(self) -> ModelProto:
        """Return the new graph. Initializers that no node uses are left out."""
        model = ModelProto()
        model.CopyFrom(self._model)
        graph = model.graph
        used = {name for node in self._new_nodes for name in node.input}
        kept = [tensor for tensor in (*graph.initializer, *self._constants) if tensor.name in used]
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(self._new_nodes)
        graph.initializer.extend(kept)
        return model


def attributes_of(node: NodeProto) -> dict[str, Any]:
    """Return the attributes of a node by name."""
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def model_bytes(model: ModelProto) -> bytes:
    """Return the checked bytes of a graph, without a trace of this machine."""
    strip(model)
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString(deterministic=True)
    return data
