from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from convvae_service.bundle import BundleError
from convvae_service.bundle.onnx_file import read_model
from convvae_service.bundle.operators import may_grow, refuse_many_operators, refuse_operators
from support.tiny_bundle import LATENT_DIM, SHAPE, decoder, encoder

SIZES_OF_VALUES = [
    ("Tile", ["latent", "whole"]),
    ("Expand", ["latent", "whole"]),
    ("Reshape", ["latent", "whole"]),
    ("OneHot", ["zero", "whole", "zero"]),
    ("ConstantOfShape", ["whole"]),
    ("Range", ["zero", "whole", "zero"]),
    ("Pad", ["latent", "whole"]),
    ("Resize", ["latent", "", "", "whole"]),
    ("Slice", ["latent", "zero", "whole"]),
]


def with_nodes(*nodes: onnx.NodeProto, reverse: bool = False) -> onnx.ModelProto:
    """Return the tiny decoder with further operators before its own."""
    model = onnx.load_from_string(decoder(SHAPE, LATENT_DIM))
    model.graph.initializer.append(numpy_helper.from_array(np.array([0], np.int64), "zero"))
    own = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*reversed(nodes), *own] if reverse else [*nodes, *own])
    return model


def judge(model: onnx.ModelProto) -> bool:
    """Refuse the graph as a reader does, or return whether it may grow."""
    declared = read_model(model.SerializeToString(), "decoder.onnx")
    refuse_many_operators(declared, "decoder.onnx")
    refuse_operators(declared, "decoder.onnx")
    return may_grow(declared)


def body() -> onnx.GraphProto:
    return helper.make_graph([helper.make_node("Identity", ["a"], ["b"])], "body", [], [])


@pytest.mark.parametrize(
    ("node", "name"),
    [
        (helper.make_node("Loop", ["", "", "latent"], ["x"], body=body()), "Loop"),
        (helper.make_node("Scan", ["latent"], ["x"], body=body(), num_scan_inputs=1), "Scan"),
        (helper.make_node("If", ["zero"], ["x"], then_branch=body(), else_branch=body()), "If"),
        (helper.make_node("NonZero", ["latent"], ["x"]), "NonZero"),
        (helper.make_node("RandomNormal", [], ["x"], shape=[1]), "RandomNormal"),
        (
            helper.make_node("BeamSearch", ["latent"], ["x"], domain="com.microsoft"),
            "com.microsoft:BeamSearch",
        ),
        (helper.make_node("EPContext", ["latent"], ["x"], domain="com.microsoft"), "com.microsoft:EPContext"),
        (helper.make_node("MatMul", ["latent"], ["x"], domain="evil.so"), "evil.so:MatMul"),
        (helper.make_node("evil\n\x1b[31m" * 50, ["latent"], ["x"]), "evil"),
    ],
)
def test_other_operators_are_refused_by_name(node: onnx.NodeProto, name: str) -> None:
    """Control flow, results whose size depends on values, random numbers and operators of other programs."""
    with pytest.raises(BundleError, match=f"decoder.onnx has the operator '{name}") as caught:
        judge(with_nodes(node))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("change", [lambda m: m.functions.add(name="f", domain="d"), lambda m: subgraph(m)])
def test_functions_and_subgraphs_are_refused(change: Callable[[onnx.ModelProto], object]) -> None:
    """Also in an operator that has none."""
    model = with_nodes()
    change(model)
    with pytest.raises(
        BundleError, match=r"decoder\.onnx has (functions of its own|a graph inside its operator)"
    ):
        judge(model)


def subgraph(model: onnx.ModelProto) -> None:
    model.graph.node[0].attribute.add(name="body", type=onnx.AttributeProto.GRAPH).g.CopyFrom(body())


def test_a_graph_of_very_many_operators_is_refused() -> None:
    model = with_nodes(*[helper.make_node("Identity", ["latent"], [f"x{row}"]) for row in range(20_001)])
    with pytest.raises(BundleError, match=r"decoder\.onnx has 20007 operators: 20000 are allowed"):
        judge(model)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("operator", "inputs"), SIZES_OF_VALUES)
def test_sizes_do_not_depend_on_values(operator: str, inputs: list[str], reverse: bool) -> None:
    """Otherwise one latent vector could make a call take all memory. The order in the file plays no part."""
    cast = helper.make_node("Cast", ["latent"], ["whole"], to=TensorProto.INT64)
    node = helper.make_node(operator, inputs, ["x"])
    with pytest.raises(BundleError, match=f"computes the size of a result of {operator} from values"):
        judge(with_nodes(cast, node, reverse=reverse))
    # The same from the input's shape: the number of rows alone decides.
    judge(with_nodes(helper.make_node("Shape", ["latent"], ["whole"]), node, reverse=reverse))


def test_graphs_of_the_exporter_do_not_grow() -> None:
    """They may be loaded at once; a graph that makes its own sizes is tried first."""
    assert not judge(onnx.load_from_string(encoder(SHAPE, LATENT_DIM)))
    assert not judge(with_nodes())
    assert judge(with_nodes(helper.make_node("ConstantOfShape", ["zero"], ["x"])))
    assert judge(with_nodes(helper.make_node("Add", ["zero", "zero"], ["x"])))
    assert judge(with_nodes(helper.make_node("ConvTranspose", ["latent", "zero"], ["x"], strides=[10**6, 1])))
    pad = with_nodes(helper.make_node("Pad", ["latent", "margins"], ["x"]))
    for margin, grows in ((1, False), (10**9, True), (-(10**9), True)):
        pad.graph.initializer.append(numpy_helper.from_array(np.array([0, margin], np.int64), "margins"))
        assert judge(pad) is grows
