"""Every graph that the project writes, and usual graphs from elsewhere, have only allowed operators."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from convvae_service.bundle import ImageShape, Role
from convvae_service.bundle.onnx_file import read_model
from convvae_service.bundle.operators import may_grow, refuse_operators
from convvae_trainer.exports.half import halved
from convvae_trainer.exports.pixel_input import with_uint8_pixels
from convvae_trainer.exports.quantized import quantized
from convvae_trainer.exports.subpixel import with_subpixel_convolutions
from support.random_graphs import random_graphs

SHAPE = ImageShape(height=16, width=16, channels=3)


def assert_allowed(graph: bytes) -> None:
    model = read_model(graph, "graph.onnx")
    refuse_operators(model, "graph.onnx")
    assert not may_grow(model)


@pytest.mark.parametrize(
    ("likelihood", "settings"),
    [
        ("bernoulli", {"last_side": 1}),
        ("gaussian", {"blocks": 1, "hidden": 16}),
        ("discretised-logistic", {"is_point": True}),
    ],
)
def test_graphs_of_the_exporter_are_allowed_in_each_precision(
    likelihood: str, settings: dict[str, Any]
) -> None:
    """They may be loaded without a trial, too."""
    graphs: dict[Role, bytes] = random_graphs(SHAPE, likelihood=likelihood, **settings)
    encoder = with_uint8_pixels(onnx.load_from_string(graphs["encoder"]))
    decoder = with_subpixel_convolutions(onnx.load_from_string(graphs["decoder"]))
    pixels = np.zeros((4, *SHAPE.as_tuple), np.uint8)
    pixels[1:] = np.arange(256, dtype=np.uint8)[: SHAPE.width, None]
    latents = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
    for graph in (
        *graphs.values(),
        *(halved(graph) for graph in graphs.values()),
        quantized(encoder, [pixels], float_output=True),
        quantized(decoder, [latents]),
    ):
        assert_allowed(graph)


@pytest.mark.parametrize(
    ("domain", "operators"),
    [
        ("", "AveragePool Concat Dropout Einsum Erf Gather Gelu GlobalAveragePool LayerNormalization"),
        ("", "MatMul MaxPool OneHot Pad ReduceMean Resize Slice Softmax Split Where"),
        ("ai.onnx.ml", "Imputer Normalizer Scaler"),
        ("com.microsoft", "DynamicQuantizeMatMul FusedMatMul MatMulIntegerToFloat SkipLayerNormalization"),
    ],
)
def test_operators_of_usual_encoders_are_allowed(domain: str, operators: str) -> None:
    """torch.onnx, tf2onnx, skl2onnx and the optimizer of ONNX Runtime write them."""
    nodes = [helper.make_node(operator, ["x"], ["y"], domain=domain) for operator in operators.split()]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph(nodes, "graph", ends[:1], ends[1:])
    refuse_operators(read_model(helper.make_model(graph).SerializeToString(), "graph.onnx"), "graph.onnx")
