"""Versions whose graphs do harm while ONNX Runtime loads or runs them."""

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper


def replace_decoder(folder: Path, data: bytes) -> Path:
    """Replace the decoder of a tiny version by other bytes, adapt the manifest, and return the folder."""
    (folder / "decoder.onnx").write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_text())
    (graph,) = (graph for graph in manifest["graphs"] if graph["role"] == "decoder")
    graph.update(sha256=sha256(data).hexdigest(), bytes=len(data))
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def compute_for_hours(folder: Path) -> Path:
    """Let ONNX Runtime multiply large constant matrices while it loads the decoder."""
    nodes = [helper.make_node("ConstantOfShape", ["sizes"], ["m0"])]
    nodes += [helper.make_node("MatMul", [f"m{row}", "m0"], [f"m{row + 1}"]) for row in range(5000)]
    nodes += [helper.make_node("ReduceMax", ["m5000"], ["largest"], keepdims=0)]
    return _add_to_latent(folder, nodes, "largest", sizes=np.array([3000, 3000], np.int64))


def take_memory(folder: Path) -> Path:
    """Let ONNX Runtime add two constants of 400 kB to one of 40 GB while it loads the decoder."""
    nodes = [
        helper.make_node("Add", ["column", "row"], ["table"]),
        helper.make_node("ReduceMean", ["table"], ["centre"], keepdims=0),
    ]
    line = np.ones(100_000, np.float32)
    return _add_to_latent(folder, nodes, "centre", column=line[:, None], row=line[None, :])


def return_no_numbers(folder: Path) -> Path:
    """Make the decoder's pixels NaN."""
    return _add_to_latent(folder, [], "nan", nan=np.float32("nan"))


def _add_to_latent(folder: Path, nodes: Sequence[onnx.NodeProto], name: str, **constants: Any) -> Path:
    model = onnx.load(folder / "decoder.onnx")
    for key, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), key))
    model.graph.node[0].input[0] = "moved"
    added = [*nodes, helper.make_node("Add", ["latent", name], ["moved"])]
    for row, node in enumerate(added):
        model.graph.node.insert(row, node)
    return replace_decoder(folder, model.SerializeToString())
