"""Rewritten graphs compute what the graphs before them computed."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from convvae_service.bundle import ImageShape
from convvae_trainer.exports.onnx_runtime import open_session
from convvae_trainer.exports.pixel_input import PIXELS, with_uint8_pixels
from convvae_trainer.exports.rewrite import model_bytes
from convvae_trainer.exports.subpixel import with_subpixel_convolutions
from support.random_graphs import random_graphs
from support.tiny_bundle import LATENT_DIM, SHAPE, encoder

TOLERANCE = 1e-6
CASES: tuple[tuple[tuple[int, int, int], dict[str, Any]], ...] = (
    ((28, 28, 1), {}),
    ((32, 32, 3), {"blocks": 1, "hidden": 16}),
    ((9, 8, 1), {}),
    ((17, 31, 3), {}),
    ((12, 40, 1), {"last_side": 3}),
    ((64, 20, 3), {}),
    ((11, 23, 3), {"last_side": 2}),
)


def runs(graph: bytes, name: str, rows: NDArray[Any]) -> list[NDArray[Any]]:
    outputs: list[NDArray[Any]] = open_session(graph, name="graph").run(None, {name: rows})
    return outputs


def assert_same(graph: bytes, rewritten: bytes, name: str, rows: NDArray[Any]) -> None:
    for before, after in zip(runs(graph, name, rows), runs(rewritten, name, rows), strict=True):
        assert before.dtype == after.dtype
        if before.dtype == np.uint8:
            # A value half way between two levels may be rounded to either.
            assert np.abs(before.astype(int) - after).max() <= 1
        else:
            largest = max(1.0, float(np.abs(before).max()))
            np.testing.assert_allclose(after, before, rtol=0, atol=TOLERANCE * largest)


def operators(model: ModelProto) -> set[str]:
    return {node.op_type for node in model.graph.node}


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "settings"), CASES, ids=str)
def test_networks_of_every_shape_are_rewritten_exactly(
    shape: tuple[int, int, int], settings: dict[str, Any]
) -> None:
    """Odd sides, oblong images and residual blocks: no value differs by more than 1e-6."""
    graphs = random_graphs(ImageShape(height=shape[0], width=shape[1], channels=shape[2]), **settings)
    random = np.random.default_rng(0)
    latents = random.standard_normal((5, 8)).astype(np.float32)
    decoder = with_subpixel_convolutions(onnx.load_from_string(graphs["decoder"]))
    assert "ConvTranspose" not in operators(decoder)
    assert_same(graphs["decoder"], model_bytes(decoder), "latent", latents)
    images = random.integers(0, 256, (5, *shape), dtype=np.uint8)
    encoder = with_uint8_pixels(onnx.load_from_string(graphs["encoder"]))
    assert "Cast" not in operators(encoder)
    assert any(PIXELS in node.output for node in encoder.graph.node)
    assert_same(graphs["encoder"], model_bytes(encoder), "image", images)


def transposed(weight_shape: tuple[int, ...], *, has_bias: bool = True, **attributes: Any) -> bytes:
    """Return a graph of one transposed convolution of rows of (5, 4) pixels."""
    random = np.random.default_rng(1)
    weight = random.standard_normal(weight_shape).astype(np.float32)
    constants = {"weight": weight} | ({"bias": weight[0, :, 0, 0].copy()} if has_bias else {})
    graph = helper.make_graph(
        [helper.make_node("ConvTranspose", ["latent", *constants], ["output"], **attributes)],
        "transposed",
        [helper.make_tensor_value_info("latent", TensorProto.FLOAT, ["batch", weight_shape[0], 5, 4])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", None, None, None])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return model_bytes(onnx.shape_inference.infer_shapes(model))


@pytest.mark.parametrize(
    ("kernel", "stride", "pads", "output_padding"),
    [
        ((4, 4), (2, 2), (1, 1, 1, 1), (0, 0)),
        ((4, 4), (2, 2), (1, 1, 1, 1), (1, 1)),
        ((4, 3), (2, 1), (1, 1, 1, 1), (1, 0)),
        ((3, 3), (2, 2), (1, 1, 1, 1), (1, 1)),
        ((5, 2), (3, 2), (0, 1, 2, 0), (0, 0)),
        ((2, 2), (2, 2), (0, 0, 0, 0), (0, 0)),
        ((1, 1), (1, 1), (0, 0, 0, 0), (0, 0)),
        ((6, 6), (2, 2), (2, 0, 1, 3), (1, 0)),
    ],
)
@pytest.mark.parametrize("has_bias", [True, False])
def test_any_transposed_convolution_is_rewritten_exactly(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    pads: tuple[int, ...],
    output_padding: tuple[int, int],
    has_bias: bool,
) -> None:
    """Kernels that are no multiple of the stride, uneven padding, and a convolution without bias too."""
    graph = transposed(
        (3, 2, *kernel),
        has_bias=has_bias,
        kernel_shape=kernel,
        strides=stride,
        pads=pads,
        output_padding=output_padding,
    )
    rewritten = with_subpixel_convolutions(onnx.load_from_string(graph))
    assert "ConvTranspose" not in operators(rewritten)
    rows = np.random.default_rng(2).standard_normal((3, 3, 5, 4)).astype(np.float32)
    assert_same(graph, model_bytes(rewritten), "latent", rows)


@pytest.mark.parametrize(
    "attributes",
    [
        {"strides": [2, 2], "group": 3},
        {"strides": [2, 2], "dilations": [2, 2]},
        # Some of the pixels that the output padding adds are reached by no tap.
        {"strides": [4, 4], "output_padding": [3, 3]},
    ],
    ids=str,
)
def test_a_transposed_convolution_of_another_kind_is_kept(attributes: dict[str, Any]) -> None:
    """Groups, dilations, and pixels of the bias alone are not what this rewriting covers."""
    kernel = [2, 2] if "output_padding" in attributes else [4, 4]
    weight = (3, 2, *kernel)
    graph = transposed(weight, has_bias=False, kernel_shape=kernel, pads=[0] * 4, **attributes)
    rewritten = with_subpixel_convolutions(onnx.load_from_string(graph))
    assert operators(rewritten) == {"ConvTranspose"}
    rows = np.random.default_rng(2).standard_normal((3, 3, 5, 4)).astype(np.float32)
    assert_same(graph, model_bytes(rewritten), "latent", rows)


@pytest.mark.parametrize("rewrite", [with_uint8_pixels, with_subpixel_convolutions])
def test_a_graph_without_convolutions_stays(rewrite: Callable[[ModelProto], ModelProto]) -> None:
    """An encoder of another program, which does not start as exported ones do, is left as it is."""
    graph = encoder(SHAPE, LATENT_DIM)
    images = np.random.default_rng(0).integers(0, 256, (3, *SHAPE.as_tuple), dtype=np.uint8)
    assert_same(graph, model_bytes(rewrite(onnx.load_from_string(graph))), "image", images)


def test_attributes_that_a_graph_leaves_out_have_their_defaults() -> None:
    """Strides of 1 and no padding need not be stated."""
    graph = transposed((3, 2, 3, 3))
    rewritten = with_subpixel_convolutions(onnx.load_from_string(graph))
    assert "ConvTranspose" not in operators(rewritten)
    rows = np.random.default_rng(2).standard_normal((3, 3, 5, 4)).astype(np.float32)
    assert_same(graph, model_bytes(rewritten), "latent", rows)
