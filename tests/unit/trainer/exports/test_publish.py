"""Export: what is published computes what was trained, and nothing else is published."""

import getpass
import io
import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from PIL import Image

import convvae_trainer.exports.publish as export_module
from convvae_service.bundle import ImageShape, Parity, expected_tensors, list_versions, read_bundle
from convvae_trainer.data.dataset import Dataset
from convvae_trainer.data.image_grid import grid, pairs, png
from convvae_trainer.errors import BadConfig, ExportFailed, MissingExtra
from convvae_trainer.exports.graphs import OPSET, DecoderGraph, EncoderGraph, to_onnx
from convvae_trainer.exports.model_card import model_card
from convvae_trainer.exports.parity import BATCHES, check_parity
from convvae_trainer.exports.publish import Exported, check_target
from convvae_trainer.networks.conv_vae import ConvVAE
from convvae_trainer.networks.likelihoods import make_likelihood
from convvae_trainer.runs.fit import Fitted
from convvae_trainer.runs.reproduce import repeatability
from convvae_trainer.settings.config import Config
from convvae_trainer.settings.recorded import recorded_settings
from support.tiny_run import export_fitted


def test_the_bundle_reads_back(
    fitted: tuple[Fitted, Dataset], published_blobs: tuple[Path, Exported]
) -> None:
    """A service can read the version, and its manifest says what was trained, on what, and how well."""
    done, dataset = fitted
    models, exported = published_blobs
    assert exported.folder == models / "blobs" / "1"
    manifest = read_bundle(exported.folder).manifest
    assert manifest == exported.manifest
    assert (manifest.image, manifest.latent_dim, manifest.objective) == (dataset.image, 4, "vae")
    assert manifest.capabilities == ("encode", "decode", "sample", "reconstruct", "score")
    assert manifest.likelihood == done.train_state.likelihood.constants()
    assert manifest.training.metrics["test_elbo_nats"] == done.evaluation.bound.elbo
    assert set(manifest.training.metrics) == {
        *("test_elbo_nats", "test_distortion_nats", "test_rate_nats", "test_bits_per_dim"),
        *("test_active_units", "training_seconds", "training_precision", "training_device"),
        *("training_steps", "training_settings", "training_data_sha256", "training_advice"),
        *("test_mse", "test_psnr_db", "test_ssim"),
        *("test_sharpness", "test_input_sharpness", "test_sample_sharpness"),
    }
    assert (manifest.training.images, manifest.training.epochs) == (len(dataset.train), 4.0)
    assert manifest.training.metrics["training_steps"] == done.progress.step == 16
    assert manifest.training.metrics["training_settings"] == recorded_settings(done.run.config)
    assert manifest.training.metrics["training_data_sha256"] == dataset.fingerprint()
    assert manifest.parity["fp32"].batches == BATCHES == (1, 2, 7, 33)
    assert manifest.resize.library.startswith("Pillow ")


def test_graphs_have_the_contracts_inputs_and_outputs(published_blobs: tuple[Path, Exported]) -> None:
    """Names, types and shapes in the files are those of the manifest, the batch being dynamic."""
    _, exported = published_blobs
    for graph in exported.manifest.graphs:
        model = onnx.load(exported.folder / graph.file)
        inputs, outputs = expected_tensors(
            graph.role, image=exported.manifest.image, latent_dim=4, has_log_variance=True
        )
        assert [described(value) for value in model.graph.input] == [tuple(i.shape) for i in inputs]
        assert [value.name for value in model.graph.input] == [i.name for i in inputs]
        assert [described(value) for value in model.graph.output] == [tuple(o.shape) for o in outputs]
        assert [value.name for value in model.graph.output] == [o.name for o in outputs]
        assert model.opset_import[0].version == OPSET == graph.opset


def described(value: onnx.ValueInfoProto) -> tuple[int | str, ...]:
    return tuple(d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim)


def test_graphs_carry_no_trace_of_the_machine(published_blobs: tuple[Path, Exported]) -> None:
    """No path, user, host, stack trace or module name of the exporting machine is in the files."""
    _, exported = published_blobs
    here = Path(__file__).resolve()
    traces = [str(here.parents[4]), str(Path.home()), str(Path.cwd()), "site-packages", ".py", "torch"]
    traces += [socket.gethostname(), f"/{getpass.getuser()}", "convvae_trainer"]
    for file in ("encoder.onnx", "decoder.onnx"):
        data = (exported.folder / file).read_bytes()
        assert [trace for trace in traces if trace.encode() in data] == []
        model = onnx.load_from_string(data)
        onnx.checker.check_model(model, full_check=True)
        assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    assert str(here.parents[4]) not in (exported.folder / "manifest.json").read_text()


def test_extras_are_a_card_and_pictures(published_blobs: tuple[Path, Exported]) -> None:
    """Beside the graphs lie a model card that says what to know, and two pictures."""
    _, exported = published_blobs
    card = (exported.folder / "MODEL_CARD.md").read_text()
    for part in ("## Metrics", "| ELBO |", "## Data", "held out", "## How to reproduce it", "## Limits"):
        assert part in card
    for name in ("reconstructions.png", "samples.png"):
        with Image.open(exported.folder / name) as image:
            assert min(image.size) > 100


@pytest.mark.slow
def test_the_next_export_is_the_next_version(
    fitted: tuple[Fitted, Dataset], published_blobs: tuple[Path, Exported], tmp_path: Path
) -> None:
    """Exports of one run are versions with the same bytes."""
    models, first = published_blobs
    shutil.copytree(models / "blobs", tmp_path / "blobs")
    second = export_fitted(fitted, tmp_path)
    assert list_versions(tmp_path, "blobs") == [1, 2]
    assert first.manifest.graphs == second.manifest.graphs


def test_a_wrong_graph_is_not_published(
    fitted: tuple[Fitted, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a graph computes something else than PyTorch, export fails and publishes nothing."""

    def tampered(*args: Any, **kwargs: Any) -> bytes:
        model = onnx.load_from_string(to_onnx(*args, **kwargs))
        for tensor in model.graph.initializer:
            if tensor.dims and tensor.data_type == onnx.TensorProto.FLOAT:
                weights = numpy_helper.to_array(tensor) + np.float32(1e-3)
                tensor.CopyFrom(numpy_helper.from_array(weights, tensor.name))
        return bytes(model.SerializeToString())

    monkeypatch.setattr(export_module, "to_onnx", tampered)
    with pytest.raises(ExportFailed, match=r"mean differs by .* on 1 images of the data, more than 0\.0001"):
        export_fitted(fitted, tmp_path)
    assert list_versions(tmp_path, "blobs") == []
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "settings"),
    [
        ((8, 8, 1), {}),
        ((28, 28, 1), {}),
        ((28, 20, 1), {}),
        ((33, 45, 3), {}),
        ((33, 45, 3), {"blocks": 1}),
        ((33, 45, 3), {"blocks": 1, "last_side": 1}),
        ((64, 64, 3), {}),
        ((256, 256, 1), {}),
    ],
    ids=str,
)
def test_every_shape_exports_with_parity(shape: tuple[int, int, int], settings: dict[str, Any]) -> None:
    """Small, large, oblong, odd, colour images and deep networks export, and ONNX Runtime equals PyTorch."""
    image = ImageShape(height=shape[0], width=shape[1], channels=shape[2])
    config = Config(dataset="x", width=8, hidden=32, latent_dim=5, **settings)
    torch.manual_seed(0)
    model = ConvVAE(config, height=image.height, width=image.width, channels=image.channels)
    modules = {"encoder": EncoderGraph(model), "decoder": DecoderGraph(model, make_likelihood("gaussian"))}
    arguments: dict[str, Any] = {"image": image, "latent_dim": 5, "has_log_variance": True}
    data = np.random.default_rng(0).integers(0, 256, (5, *shape), dtype=np.uint8)
    parity = check_parity(
        encoder=modules["encoder"],
        decoder=modules["decoder"],
        graphs={
            "encoder": to_onnx(modules["encoder"], role="encoder", **arguments),
            "decoder": to_onnx(modules["decoder"], role="decoder", **arguments),
        },
        images=data,
    )
    assert parity.mean < 1e-4
    assert parity.image_steps <= 1


@pytest.mark.slow
def test_codes_of_any_size_export() -> None:
    """Codes have no bound: their tolerance is relative, and the absolute error is recorded."""
    image = ImageShape(height=12, width=10, channels=1)
    config = Config(dataset="x", objective="ae", width=8, hidden=32, latent_dim=5)
    torch.manual_seed(0)
    model = ConvVAE(config, height=12, width=10, channels=1, is_point=True)
    with torch.no_grad():
        for parameter in model.encoder.head.parameters():
            parameter.mul_(1e4)
        next(model.decoder.parameters()).mul_(1e-4)
    modules = {"encoder": EncoderGraph(model), "decoder": DecoderGraph(model, make_likelihood("gaussian"))}
    arguments: dict[str, Any] = {"image": image, "latent_dim": 5, "has_log_variance": False}
    graphs: dict[Any, bytes] = {
        role: to_onnx(modules[role], role=role, **arguments) for role in ("encoder", "decoder")
    }
    data = np.random.default_rng(0).integers(0, 256, (40, 12, 10, 1), dtype=np.uint8)

    def check() -> Parity:
        return check_parity(
            encoder=modules["encoder"], decoder=modules["decoder"], graphs=graphs, images=data
        )

    largest = float(modules["encoder"](torch.from_numpy(data))[0].detach().abs().max())
    assert largest > 1e3
    parity = check()
    assert 1e-4 < parity.mean < 1e-4 * largest
    assert parity.log_variance is None
    # A graph that is wrong at this size is still refused.
    with torch.no_grad():
        next(model.encoder.head.parameters()).mul_(1.001)
    with pytest.raises(ExportFailed, match=r"mean differs by .* on 1 images of the data, more than "):
        check()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "--name: '' is not a model name"),
        ("a/b", "--name: 'a/b' is not a model name"),
        ("../x", "--name: '../x' is not a model name"),
        ("liveness", "--name: 'liveness' is reserved"),
    ],
)
def test_a_bad_name_is_refused_first(tmp_path: Path, name: str, message: str) -> None:
    """A name that no model may have is refused before anything is trained."""
    with pytest.raises(BadConfig) as raised:
        check_target(tmp_path, name)
    assert message in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_a_target_that_is_no_folder_is_refused_first(tmp_path: Path) -> None:
    """A repository that cannot be written is refused before anything is trained."""
    (tmp_path / "file").write_text("")
    with pytest.raises(BadConfig, match=r"--models: .*file/name cannot be written"):
        check_target(tmp_path / "file", "name")
    check_target(tmp_path / "new", "name")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.slow
def test_a_missing_runtime_names_its_extras(
    fitted: tuple[Fitted, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without ONNX Runtime the message says which extra brings it; nothing is published."""
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(MissingExtra) as raised:
        export_fitted(fitted, tmp_path)
    expected = 'onnxruntime is not installed: pip install "convvae[gpu]" or pip install "convvae[cpu]"'
    assert str(raised.value) == expected
    assert list_versions(tmp_path, "blobs") == []


def test_exported_weights_are_the_averaged_ones(
    fitted: tuple[Fitted, Dataset], published_blobs: tuple[Path, Exported]
) -> None:
    """The averaged weights, which were evaluated, are exported."""
    done, _ = fitted
    average = done.train_state.tensors()["average.model.encoder.head.bias"].numpy()
    model = onnx.load(published_blobs[1].folder / "encoder.onnx")
    arrays = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    assert any(array.shape == average.shape and np.array_equal(array, average) for array in arrays)


def test_grids_hold_every_image() -> None:
    """Tiles lie row by row; a last row that is not full stays grey; small tiles are enlarged."""
    images = np.arange(1, 6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 9, 1), dtype=np.uint8)
    tiles = grid(images, columns=3)
    assert tiles.shape == (2 * 10 + 2, 3 * 11 + 2, 1)
    assert [int(tiles[5, 5, 0]), int(tiles[15, 15, 0]), int(tiles[15, 30, 0])] == [1, 5, 128]
    both = pairs(images, images + 100, columns=3)
    assert [int(both[5, 5, 0]), int(both[15, 5, 0]), int(both[25, 5, 0]), int(both[35, 5, 0])] == [
        1,
        101,
        4,
        104,
    ]
    with Image.open(io.BytesIO(png(tiles, tile_side=8))) as image:
        assert image.size == (35 * 7, 22 * 7)


def test_paths_stay_out_of_the_bundle(
    fitted: tuple[Fitted, Dataset], published_blobs: tuple[Path, Exported]
) -> None:
    """No file of a version holds a path of this machine; a data set is named by its path's last part."""
    done, dataset = fitted
    assert Path(dataset.name).is_absolute()
    assert published_blobs[1].manifest.training.dataset == "blobs.npy"
    traces = [str(Path(dataset.name).parent), str(done.run.path), str(published_blobs[0]), str(Path.cwd())]
    for path in published_blobs[1].folder.iterdir():
        data = path.read_bytes()
        assert [trace for trace in traces if trace.encode() in data] == [], path.name


@pytest.mark.parametrize("binarize", ["none", "dynamic"])
def test_the_card_says_what_score_has_to_do_with_it(
    fitted: tuple[Fitted, Dataset], published_blobs: tuple[Path, Exported], binarize: str
) -> None:
    """Score and ELBO differ, and a reader who compares them learns why; equality is not promised twice."""
    done, _ = fitted
    figures = {**done.evaluation.to_json_object(), "binarize": binarize, "binarize_seed": 777}
    card = model_card(
        published_blobs[1].manifest,
        record=done.run.record,
        evaluation=figures,
        reproduce="command",
        repeatability=repeatability(done.run.config, done.run.record),
    )
    text = " ".join(card.split())
    assert "`Score` is taken at the posterior mean by default and usually higher than this ELBO" in text
    assert "With `num_samples` it averages over posterior draws" in text
    assert ("if the images are drawn to 0 and 1 first" in text) == (binarize == "dynamic")
    assert "the same weights, bit by bit" in text
