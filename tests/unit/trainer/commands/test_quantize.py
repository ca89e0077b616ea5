"""`quantize`: a new version with accurate graphs, or one clear line and no version."""

import dataclasses
import errno
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import convvae_service.bundle.publisher as publisher
import convvae_trainer.exports.accuracy as accuracy_module
import convvae_trainer.exports.conversion as conversion
from convvae_service.bundle import Accuracy, BundleError, list_versions, read_bundle
from convvae_service.engine.stages import Engine
from convvae_service.repository.check import check_repository
from convvae_trainer.commands.quantize import Quantized, QuantizeOptions, run_quantize
from convvae_trainer.data.dataset import Dataset
from convvae_trainer.errors import BadConfig, BadData, ExportFailed, TrainerError
from convvae_trainer.exports.accuracy import shortfalls
from convvae_trainer.exports.quantized import quantized
from convvae_trainer.runs.fit import fit
from convvae_trainer.runs.signals import Stopped
from convvae_trainer.settings.config import Config
from support.commands import run_train
from support.spoilt_bundle import flip_a_bit
from support.tiny_bundle import publish_tiny
from support.tiny_run import export_fitted

EXACT = Accuracy.exact(has_elbo=True)


@pytest.fixture
def models(published_pair: tuple[Path, Dataset], tmp_path: Path) -> Path:
    """A repository with `blobs`, a vae, and `blobs-ae`, an autoencoder, to be changed."""
    shutil.copytree(published_pair[0], tmp_path / "models")
    return tmp_path / "models"


def quantize(models: Path, name: str, dataset: str, **options: Any) -> Quantized:
    return run_quantize(QuantizeOptions(model=str(models / name), dataset=dataset, **options))


def versions(models: Path) -> dict[str, list[int]]:
    """Return the versions of each model, and check that no other folder is there."""
    for folder in models.iterdir():
        assert all(entry.name.isdigit() for entry in folder.iterdir())
    return {folder.name: list_versions(models, folder.name) for folder in models.iterdir()}


@pytest.mark.parametrize("name", ["blobs", "blobs-ae"])
def test_the_new_version_has_the_old_graphs_and_the_new_ones(
    models: Path, published_pair: tuple[Path, Dataset], name: str
) -> None:
    """Both precisions are published, checked and run; the version before is as it was."""
    before = {path.name: path.read_bytes() for path in (models / name / "1").iterdir()}
    found = quantize(models, name, published_pair[1].name, precisions=("int8", "fp16"))
    assert found.folder == models / name / "2"
    assert {path.name: path.read_bytes() for path in (models / name / "1").iterdir()} == before
    bundle = read_bundle(found.folder)
    manifest = bundle.manifest
    assert manifest.precisions == ("fp32", "fp16", "int8")
    for role in ("encoder", "decoder"):
        assert bundle.graphs[role, "fp32"] == before[f"{role}.onnx"]
    assert not [finding.error for finding in check_repository(models) if finding.error]
    images = published_pair[1].test
    means = {
        precision: Engine(bundle, precision=precision, device="cpu").encode.run((images,))[0]
        for precision in manifest.precisions
    }
    for precision, one in zip(("int8", "fp16"), found.converted, strict=True):
        assert manifest.accuracy[precision] == one.accuracy
        assert (one.accuracy.elbo_change is None) == (name == "blobs-ae")
        assert not shortfalls(one.accuracy)
        largest = np.abs(means[precision] - means["fp32"]).max()
        assert 0 < largest < 0.1 * np.abs(means["fp32"]).max()
    card = (found.folder / "MODEL_CARD.md").read_text()
    assert card.startswith(before["MODEL_CARD.md"].decode())
    assert "## Graphs in int8" in card
    assert "int8 weights of 7 bits.\n70 training images gave the ranges. Kept in fp32: no layer." in card
    assert (found.folder / "samples.png").read_bytes() == before["samples.png"]


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", ["gaussian", "discretised-logistic"])
def test_models_of_every_likelihood_are_quantised(
    dataset: Dataset, config: Config, tmp_path: Path, likelihood: Any
) -> None:
    """The change of the ELBO is that of the model's own likelihood."""
    done = fit(dataclasses.replace(config, likelihood=likelihood), dataset, tmp_path / "run")
    export_fitted((done, dataset), tmp_path / "models")
    found = quantize(tmp_path / "models", "blobs", config.dataset)
    change = found.converted[0].accuracy.elbo_change
    assert change is not None
    assert 0 < abs(change) < 5


def test_the_same_seed_gives_the_same_graphs(models: Path, published_pair: tuple[Path, Dataset]) -> None:
    """A second run on the same version publishes files of the same bytes."""
    first, second = (quantize(models, "blobs@1", published_pair[1].name).folder for _ in range(2))
    assert (first.name, second.name) == ("2", "3")
    for name in ("encoder.int8.onnx", "decoder.int8.onnx", "manifest.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_a_version_of_schema_1_gets_entries_for_all_precisions(
    models: Path, published_pair: tuple[Path, Dataset]
) -> None:
    """It had no accuracy; its successor has the exact entry of fp32 too."""
    path = models / "blobs" / "1" / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["accuracy"]
    path.write_text(json.dumps(manifest | {"schema_version": 1}))
    found = quantize(models, "blobs/1", published_pair[1].name, precisions=("fp16",))
    assert read_bundle(found.folder).manifest.accuracy["fp32"] == EXACT


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("blobs", {"dataset": "nowhere.npy"}, "nowhere.npy does not exist"),
        ("absent", {}, "absent': there is "),
        ("blobs@7", {}, "has no version '7': it has 1"),
        ("blobs/7", {}, "has no version '7': it has 1"),
        ("blobs@x", {}, "has no version 'x': it has 1"),
    ],
)
def test_what_is_not_there_is_refused(
    models: Path, published_pair: tuple[Path, Dataset], name: str, options: dict[str, Any], message: str
) -> None:
    """No data, no model and no such version are one line each, and nothing is published."""
    before = versions(models)
    with pytest.raises(TrainerError) as caught:
        quantize(models, name, **{"dataset": published_pair[1].name, **options})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert versions(models) == before


def test_data_of_other_channels_are_refused_and_of_another_size_are_resized(
    models: Path, tmp_path: Path
) -> None:
    """An array keeps its channels. Pictures take the size of the model, as in training."""
    np.save(
        tmp_path / "colour.npy", np.random.default_rng(0).integers(256, size=(20, 12, 10, 3), dtype=np.uint8)
    )
    with pytest.raises(BadData, match="are 12x10x3, images of blobs are 12x10x1: give data with the same"):
        quantize(models, "blobs", str(tmp_path / "colour.npy"))
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(20):
        Image.new("RGB", (31, 40), (200, 10 * number, 0)).save(folder / f"{number}.png")
    assert quantize(models, "blobs", str(folder)).dataset.image.as_tuple == (12, 10, 1)


def test_a_version_that_is_int8_already_is_refused(
    models: Path, published_pair: tuple[Path, Dataset]
) -> None:
    """The line says how to name another version. fp16 can still be added to it."""
    dataset = published_pair[1].name
    quantize(models, "blobs", dataset)
    for options in ({}, {"precisions": ("fp16", "int8")}):
        with pytest.raises(
            BadConfig, match="2 has int8 graphs already: give a version without them, as ROOT"
        ):
            quantize(models, "blobs", dataset, **options)
    third = quantize(models, "blobs", dataset, precisions=("fp16",))
    assert read_bundle(third.folder).manifest.precisions == ("fp32", "fp16", "int8")
    card = (third.folder / "MODEL_CARD.md").read_text()
    assert card.index("## Graphs in int8") < card.index("## Graphs in fp16")


def test_a_version_without_fp32_is_refused(tmp_path: Path) -> None:
    """There is nothing to convert and to compare with."""
    publish_tiny(tmp_path, precisions=("fp16",))
    with pytest.raises(BadConfig, match="has no fp32 graphs, which the others are made from"):
        quantize(tmp_path, "tiny", "digits")


def test_a_damaged_version_is_refused(models: Path, published_pair: tuple[Path, Dataset]) -> None:
    """A checksum that is wrong ends the command before any work, with the version's folder."""
    flip_a_bit(models / "blobs" / "1")
    with pytest.raises(BundleError, match=r"blobs/1: .*\.onnx is damaged: its sha256 is"):
        quantize(models, "blobs", published_pair[1].name)
    assert versions(models)["blobs"] == [1]


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_graphs_that_are_not_accurate_are_not_published(
    monkeypatch: pytest.MonkeyPatch, models: Path, published_pair: tuple[Path, Dataset], precision: str
) -> None:
    """Every figure that fails is in the one line, with its bound."""
    monkeypatch.setattr(accuracy_module, "COSINE_MEAN", 1.5)
    monkeypatch.setattr(accuracy_module, "PSNR_LOSS_DB", -1.0)
    with pytest.raises(ExportFailed) as caught:
        quantize(models, "blobs", published_pair[1].name, precisions=(precision,))
    text = str(caught.value)
    assert text.startswith(f"{precision} graphs are not accurate enough on 10 test images: the cosine of")
    assert "in the mean (at least 1.5); reconstructions lose" in text
    assert text.endswith("dB (less than -1.0); nothing was published")
    assert "\n" not in text
    assert versions(models) == {"blobs": [1], "blobs-ae": [1]}


def test_layers_that_cost_accuracy_stay_in_fp32(
    monkeypatch: pytest.MonkeyPatch, models: Path, published_pair: tuple[Path, Dataset]
) -> None:
    """The first accurate choice is taken for each graph, and the card names it."""
    tried: list[tuple[bool, tuple[str, ...]]] = []

    def remembered(*args: Any, **options: Any) -> bytes:
        tried.append((options["float_output"], tuple(options["kept"])))
        return quantized(*args, **options)

    def refused_at_first(accuracy: Accuracy) -> list[str]:
        return ["not yet"] if tried[-1] in ((True, ()), (False, ()), (False, ("last",))) else []

    monkeypatch.setattr(conversion, "quantized", remembered)
    monkeypatch.setattr(conversion, "shortfalls", refused_at_first)
    found = quantize(models, "blobs", published_pair[1].name)
    assert tried == [(True, ()), (True, ("last",)), (False, ()), (False, ("last",)), (False, ("first",))]
    assert found.converted[0].kept == {"encoder": ("last",), "decoder": ("first",)}
    text = "Kept in fp32: the last layer of the encoder, the first layer of the decoder."
    assert text in (found.folder / "MODEL_CARD.md").read_text()


def test_no_decoder_is_tried_beside_a_bad_encoder(
    monkeypatch: pytest.MonkeyPatch, models: Path, published_pair: tuple[Path, Dataset]
) -> None:
    """If no choice for the encoder is accurate, the version is refused at once."""
    tried: list[bool] = []

    def remembered(*args: Any, **options: Any) -> bytes:
        tried.append(options["float_output"])
        return quantized(*args, **options)

    monkeypatch.setattr(conversion, "quantized", remembered)
    monkeypatch.setattr(conversion, "shortfalls", lambda _: ["never"])
    with pytest.raises(ExportFailed, match="on 10 test images: never; nothing was published"):
        quantize(models, "blobs", published_pair[1].name, precisions=("int8",))
    assert tried == [True] * 4


@pytest.mark.parametrize(
    ("change", "number"),
    [
        ({"cosine_mean": 0.9989}, 1),
        ({"cosine_p01": 0.98}, 1),
        ({"psnr_loss_db": 0.3}, 1),
        ({"cosine_mean": float("nan"), "cosine_p01": float("nan"), "psnr_loss_db": float("nan")}, 3),
        ({"cosine_mean": 0.999, "cosine_p01": 0.99, "psnr_loss_db": 0.29}, 0),
    ],
)
def test_each_bound_of_the_gate(change: dict[str, Any], number: int) -> None:
    """A figure at its bound or without a number fails as it should."""
    assert len(shortfalls(dataclasses.replace(EXACT, **change))) == number


def test_a_full_disk_publishes_nothing(
    monkeypatch: pytest.MonkeyPatch, models: Path, published_pair: tuple[Path, Dataset]
) -> None:
    """The error is one line, and no folder of the attempt is left."""
    write = publisher._write

    def full(path: Path, data: bytes) -> None:
        if path.name == "encoder.int8.onnx":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, data)

    monkeypatch.setattr(publisher, "_write", full)
    with pytest.raises(
        ExportFailed, match="cannot be written: No space left on device; nothing was published"
    ):
        quantize(models, "blobs", published_pair[1].name)
    assert versions(models)["blobs"] == [1]


def test_an_interrupt_publishes_nothing(
    monkeypatch: pytest.MonkeyPatch, models: Path, published_pair: tuple[Path, Dataset]
) -> None:
    """A signal between two files leaves the model as it was."""

    def stop(*args: Any) -> None:
        raise Stopped(2)

    monkeypatch.setattr(publisher, "_write", stop)
    with pytest.raises(Stopped):
        quantize(models, "blobs", published_pair[1].name)
    assert versions(models)["blobs"] == [1]


def test_the_command_prints_one_json_object_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    models: Path,
    published_pair: tuple[Path, Dataset],
) -> None:
    """Standard output has the result alone; the lines about progress go to standard error."""
    words = ("quantize", str(models / "blobs"), "--dataset", published_pair[1].name, "--precision", "both")
    assert run_train(monkeypatch, *words, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["folder"] == str(models / "blobs" / "2")
    assert set(result["precisions"]) == {"int8", "fp16"}
    assert run_train(monkeypatch, *words[:-2], "--calibration-images", "10", "--weight-bits", "8") == 2
    assert "has int8 graphs already" in capsys.readouterr().err
    assert run_train(monkeypatch, "quantize", f"{models / 'blobs'}@1", *words[2:4], "--weight-bits", "8") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"quantised     {models / 'blobs' / '1'} as {models / 'blobs' / '3'}"
    assert lines[-1] == f"next          convvae-serve --models {models} --precision int8"


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_names_its_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], package: str
) -> None:
    """Nothing is read before that."""
    monkeypatch.setitem(sys.modules, package, None)
    assert run_train(monkeypatch, "quantize", "models/blobs", "--dataset", "digits") == 2
    assert capsys.readouterr().err.startswith(f"error: {package} is not installed: pip install")
