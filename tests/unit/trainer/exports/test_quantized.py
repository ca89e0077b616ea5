"""Graphs in int8 and fp16: which layers change, which names and types stay, and which graphs are refused."""

import errno
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from convvae_service.bundle import ImageShape, Role
from convvae_trainer.errors import ExportFailed
from convvae_trainer.exports.half import halved
from convvae_trainer.exports.onnx_runtime import open_session, quantization_tools
from convvae_trainer.exports.pixel_input import PIXELS, with_uint8_pixels
from convvae_trainer.exports.quantized import quantized
from convvae_trainer.exports.rewrite import model_bytes
from convvae_trainer.exports.subpixel import with_subpixel_convolutions
from support.random_graphs import random_graphs

SHAPE = ImageShape(height=16, width=16, channels=3)


@pytest.fixture(scope="module")
def graphs() -> dict[Role, bytes]:
    return random_graphs(SHAPE, blocks=1)


def dark_images(count: int) -> NDArray[np.uint8]:
    """Return images whose brightest pixel is far below 255."""
    return np.random.default_rng(0).integers(0, 60, (count, *SHAPE.as_tuple), dtype=np.uint8)


def latents(count: int) -> NDArray[np.float32]:
    return np.random.default_rng(1).standard_normal((count, 8)).astype(np.float32)


def int8_graphs(graphs: dict[Role, bytes], **options: Any) -> dict[Role, bytes]:
    encoder = with_uint8_pixels(onnx.load_from_string(graphs["encoder"]))
    decoder = with_subpixel_convolutions(onnx.load_from_string(graphs["decoder"]))
    return {
        "encoder": quantized(encoder, [dark_images(32)], float_output=True, **options),
        "decoder": quantized(decoder, [latents(32)], **options),
    }


def signature(graph: bytes) -> list[tuple[str, str, Any]]:
    session = open_session(graph, name="graph")
    return [
        (tensor.name, tensor.type, tensor.shape[1:])
        for tensor in (*session.get_inputs(), *session.get_outputs())
    ]


def weight_types(graph: bytes) -> list[int]:
    """Return the types of the matrices and kernels of a graph, in the order of its nodes."""
    model = onnx.load_from_string(graph)
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    quantised = {
        node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"
    }
    layers = [node for node in model.graph.node if node.op_type in ("Conv", "ConvTranspose", "Gemm")]
    return [types[quantised.get(node.input[1], node.input[1])] for node in layers]


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_inputs_and_outputs_keep_names_types_and_shapes(graphs: dict[Role, bytes], precision: str) -> None:
    """A service runs the graphs of every precision alike."""
    made = int8_graphs(graphs) if precision == "int8" else {r: halved(g) for r, g in graphs.items()}
    for role, graph in made.items():
        assert signature(graph) == signature(graphs[role])
        assert onnx.load_from_string(graph).producer_name == "convvae"
        assert b"/tmp" not in graph


@pytest.mark.parametrize("kept", [(), ("last",), ("first",), ("first", "last")])
def test_only_the_kept_layers_stay_in_fp32(graphs: dict[Role, bytes], kept: tuple[Any, ...]) -> None:
    """Every other matrix and kernel is int8, residual blocks included."""
    for graph in int8_graphs(graphs, kept=kept).values():
        types = weight_types(graph)
        expected = [TensorProto.INT8] * len(types)
        if "first" in kept:
            expected[0] = TensorProto.FLOAT
        if "last" in kept:
            expected[-1] = TensorProto.FLOAT
        assert types == expected


@pytest.mark.parametrize(("bits", "largest"), [(7, 64), (8, 127)])
def test_weights_have_their_bits(graphs: dict[Role, bytes], bits: int, largest: int) -> None:
    """Two products of an activation and a weight of 7 bits fit into 16 bits: 2 x 255 x 64 < 2^15."""
    for graph in int8_graphs(graphs, weight_bits=bits).values():
        weights = [
            onnx.numpy_helper.to_array(tensor)
            for tensor in onnx.load_from_string(graph).graph.initializer
            if tensor.data_type == TensorProto.INT8 and len(tensor.dims) > 1
        ]
        assert max(np.abs(weight.astype(int)).max() for weight in weights) == largest


def test_pixels_brighter_than_all_training_images_are_not_cut_off(graphs: dict[Role, bytes]) -> None:
    """The scale of pixels is 1/255, whatever the brightest training image."""
    model = onnx.load_from_string(int8_graphs(graphs)["encoder"])
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    (scaled,) = [node for node in model.graph.node if PIXELS in node.output]
    assert scaled.op_type == "DequantizeLinear"
    assert constants[scaled.input[1]] == pytest.approx(1 / 255)
    assert constants[scaled.input[2]] == 0
    assert [node.op_type for node in model.graph.node if PIXELS in node.input] == ["Conv"]


def test_halved_weights_are_half_as_large(graphs: dict[Role, bytes]) -> None:
    """All layers have 16-bit weights, and the results are near those of fp32."""
    inputs: dict[Role, NDArray[Any]] = {"encoder": dark_images(4), "decoder": latents(4)}
    for role, rows in inputs.items():
        graph = halved(graphs[role])
        assert set(weight_types(graph)) == {TensorProto.FLOAT16}
        before, after = (
            open_session(data, name=role).run(None, {name: rows})
            for data, name in ((graphs[role], signature(graph)[0][0]), (graph, signature(graph)[0][0]))
        )
        for first, second in zip(before, after, strict=True):
            assert np.abs(first.astype(float) - second).max() < (1.5 if first.dtype == np.uint8 else 0.02)


def identity() -> onnx.ModelProto:
    tensor = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", tensor[:1], tensor[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def test_a_graph_without_weights_is_refused() -> None:
    """There is nothing to quantise; as fp16 it stays what it is."""
    with pytest.raises(ExportFailed, match="a graph has no layer with weights to quantise"):
        quantized(identity(), [np.zeros((2, 2), np.float32)])
    assert len(signature(halved(model_bytes(identity())))) == 2


def test_what_the_converter_cannot_do_is_one_line(
    monkeypatch: pytest.MonkeyPatch, graphs: dict[Role, bytes]
) -> None:
    """Any of its errors becomes `ExportFailed`, except those of the disk."""
    model = onnx.load_from_string(graphs["decoder"])

    def fail(error: Exception) -> None:
        def raise_it(*args: Any, **options: Any) -> None:
            raise error

        monkeypatch.setattr(quantization_tools(), "quantize_static", raise_it)

    fail(ValueError("no range for x\nand more"))
    with pytest.raises(ExportFailed, match="cannot convert a graph to int8: no range for x; nothing was"):
        quantized(model, [latents(2)])
    fail(OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(OSError, match="No space left"):
        quantized(model, [latents(2)])
