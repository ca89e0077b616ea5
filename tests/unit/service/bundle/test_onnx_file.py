import hashlib
import json
from pathlib import Path

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convvae_service.bundle import (
    BundleError,
    read_bundle,
)
from convvae_service.bundle.onnx_file import read_model, refuse_external_data
from convvae_service.bundle.operators import may_grow, refuse_operators
from support.tiny_bundle import LATENT_DIM, SHAPE, encoder


def replace_encoder(folder: Path, data: bytes) -> None:
    """Replace the encoder by other bytes, and adapt the manifest."""
    (folder / "encoder.onnx").write_bytes(data)
    file = folder / "manifest.json"
    content = json.loads(file.read_text())
    content["graphs"][0].update(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
    file.write_text(json.dumps(content))


@pytest.mark.parametrize("place", ["initializer", "attribute", "subgraph", "function"])
def test_external_data_is_refused(version: Path, place: str) -> None:
    """A tensor that points to another file is found in every part of a graph."""
    model = onnx.load_from_string(encoder(SHAPE, LATENT_DIM))
    tensor = onnx.TensorProto(name="w", data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/passwd")
    attribute = onnx.AttributeProto(name="value", type=onnx.AttributeProto.TENSOR, t=tensor)
    node = onnx.NodeProto(op_type="Constant", output=["w"], attribute=[attribute])
    if place == "initializer":
        model.graph.initializer.append(tensor)
    elif place == "attribute":
        model.graph.node.append(node)
    elif place == "subgraph":
        branch = onnx.AttributeProto(name="then_branch", type=onnx.AttributeProto.GRAPH)
        branch.g.node.append(node)
        model.graph.node.append(onnx.NodeProto(op_type="If", attribute=[branch]))
    else:
        model.functions.add(name="f", domain="d").node.append(node)
    replace_encoder(version, model.SerializeToString())
    with pytest.raises(BundleError, match=r"encoder\.onnx keeps weights in another file \(external data\)"):
        read_bundle(version)


def test_bytes_that_are_no_graph_are_refused(version: Path) -> None:
    """A file with the right checksum that is not ONNX is refused."""
    replace_encoder(version, b"\xff" * 100)
    with pytest.raises(BundleError, match=r"encoder\.onnx is not an ONNX model"):
        read_bundle(version)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=8), st.integers(0, 10**6))
def test_any_bytes_pass_or_are_refused(edits: list[tuple[int, int]], length: int) -> None:
    """The checks of any bytes pass or raise `BundleError`."""
    seed = encoder(SHAPE, LATENT_DIM)
    data = bytearray(seed[: length % (2 * len(seed))])
    for position, value in edits:
        if data:
            data[position % len(data)] = value
    message = "graph "
    try:
        model = read_model(bytes(data), "graph")
        refuse_external_data(model, "graph")
        refuse_operators(model, "graph")
        may_grow(model)
    except BundleError as error:
        message = str(error)
    assert message.startswith("graph ")
