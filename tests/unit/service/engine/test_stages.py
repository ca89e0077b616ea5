import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from convvae_service.bundle import BundleError, ImageShape, read_bundle
from convvae_service.engine import runtime
from convvae_service.engine.runtime import choose_provider, import_runtime
from convvae_service.engine.stages import Engine
from convvae_service.errors import StartupError
from support.tiny_bundle import LATENT_DIM, SHAPE, decoder, encoder, publish_tiny


def replace(folder: Path, role: str, data: bytes) -> Path:
    """Replace a graph by other bytes, and adapt the manifest."""
    file = folder / "manifest.json"
    content = json.loads(file.read_text())
    for graph in content["graphs"]:
        if graph["role"] == role:
            graph.update(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
    (folder / f"{role}.onnx").write_bytes(data)
    file.write_text(json.dumps(content))
    return folder


def test_a_graph_of_another_signature_is_refused(tmp_path: Path) -> None:
    """A graph with other inputs or outputs than the manifest's is refused, and the message shows both."""
    folder = publish_tiny(tmp_path)
    replace(folder, "encoder", encoder(SHAPE, LATENT_DIM + 1))
    with pytest.raises(BundleError, match=r"encoder\.onnx has other outputs .*-1, 5.*-1, 4"):
        Engine(read_bundle(folder), device="cpu")
    replace(folder, "encoder", encoder(ImageShape(height=8, width=7, channels=1), LATENT_DIM))
    with pytest.raises(BundleError, match=r"encoder\.onnx has other inputs than the manifest: "):
        Engine(read_bundle(folder), device="cpu")


def test_a_graph_that_the_runtime_cannot_load_is_refused(tmp_path: Path) -> None:
    """An ONNX file that ONNX Runtime does not accept is refused by its file name."""
    folder = publish_tiny(tmp_path)
    data = decoder(SHAPE, LATENT_DIM).replace(b"Sigmoid", b"Reshape")
    replace(folder, "decoder", data)
    with pytest.raises(BundleError, match=r"ONNX Runtime cannot load decoder\.onnx: "):
        Engine(read_bundle(folder), device="cpu")


def test_a_graph_that_loads_and_does_not_run_is_refused(tmp_path: Path) -> None:
    """A fault at run time is found by the warm-up, before the first call."""
    folder = publish_tiny(tmp_path)
    model = onnx.load_from_string(decoder(SHAPE, LATENT_DIM))
    index = onnx.numpy_helper.from_array(np.array([99], np.int64), "beyond")
    model.graph.initializer.append(index)
    model.graph.node.insert(0, onnx.helper.make_node("Gather", ["latent", "beyond"], ["nothing"], axis=1))
    model.graph.node.insert(1, onnx.helper.make_node("Add", ["latent", "nothing"], ["moved"]))
    model.graph.node[2].input[0] = "moved"
    replace(folder, "decoder", model.SerializeToString())
    engine = Engine(read_bundle(folder), device="cpu")
    with pytest.raises(BundleError, match="its graphs load but fail to decode: "):
        engine.warm(4)


def test_a_graph_that_loses_rows_is_refused(tmp_path: Path) -> None:
    """A graph that returns another number of rows is refused, because callers would wait for the rest."""
    folder = publish_tiny(tmp_path)
    model = onnx.load_from_string(encoder(SHAPE, LATENT_DIM))
    first = onnx.numpy_helper.from_array(np.array([0], np.int64), "first")
    model.graph.initializer.append(first)
    model.graph.node.insert(0, onnx.helper.make_node("Gather", ["image", "first"], ["one"], axis=0))
    model.graph.node[1].input[0] = "one"
    replace(folder, "encoder", model.SerializeToString())
    with pytest.raises(BundleError, match=r"encoder\.onnx has other outputs|do not encode: image: 2 rows in"):
        Engine(read_bundle(folder), device="cpu").warm(4)


def test_padding_changes_no_answer(tmp_path: Path) -> None:
    """Batches padded to a power of two, as on a GPU, give the same rows as unpadded ones."""
    bundle = read_bundle(publish_tiny(tmp_path))
    plain, padded = Engine(bundle, device="cpu"), Engine(bundle, device="cpu")
    padded._pads = True
    padded.warm(8)
    for rows in (1, 2, 3, 5, 8):
        images = np.random.default_rng(rows).integers(0, 256, (rows, *SHAPE.as_tuple), np.uint8)
        for expected, actual in zip(plain.encode.run((images,)), padded.encode.run((images,)), strict=True):
            assert actual.shape == (rows, LATENT_DIM)
            np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_auto_takes_the_cpu_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a device `auto` runs on the CPU, and `cuda` is refused with advice."""
    monkeypatch.setattr(runtime, "_DEVICE_NODES", ("/no/such/device",))
    assert choose_provider("auto") == ("CPUExecutionProvider", {})
    assert choose_provider("cpu") == ("CPUExecutionProvider", {})
    with pytest.raises(StartupError) as caught:
        choose_provider("cuda:0")
    assert str(caught.value) == (
        "device 'cuda:0': no NVIDIA device is present; use --device auto or cpu to run without a GPU"
    )


def test_both_builds_of_the_runtime_are_one_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """The GPU and CPU wheels overwrite each other's files, so a start with both is refused."""
    monkeypatch.setattr(runtime, "_is_installed", lambda _: True)
    with pytest.raises(StartupError, match="are both installed and overwrite each other's files"):
        import_runtime()


def test_a_missing_runtime_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any build the message names the extras."""
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(StartupError, match=r"pip install 'convvae\[service,gpu\]', or"):
        import_runtime()
