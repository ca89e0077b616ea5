"""Ways in which a published version can be bad."""

import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnx


def flip_a_bit(folder: Path) -> None:
    """Damage the encoder, as a bad copy does."""
    data = bytearray((folder / "encoder.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "encoder.onnx").write_bytes(data)


def fail_at_run_time(folder: Path) -> None:
    """Give a tiny version a decoder that is listed and loads, and reaches beyond its input when it runs."""
    model = onnx.load(folder / "decoder.onnx")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([999], np.int64), "beyond"))
    model.graph.node.insert(0, onnx.helper.make_node("Gather", ["latent", "beyond"], ["nothing"], axis=1))
    model.graph.node.insert(1, onnx.helper.make_node("Add", ["latent", "nothing"], ["moved"]))
    model.graph.node[2].input[0] = "moved"
    data = model.SerializeToString()
    (folder / "decoder.onnx").write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_text())
    (graph,) = (graph for graph in manifest["graphs"] if graph["role"] == "decoder")
    graph.update(sha256=sha256(data).hexdigest(), bytes=len(data))
    (folder / "manifest.json").write_text(json.dumps(manifest))
