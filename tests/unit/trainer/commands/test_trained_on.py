"""No command calls an image a test image that a model was trained on."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convvae_service.bundle import (
    TRAINED_ON_FILE,
    BundleError,
    ImageShape,
    encode_trained_on,
    read_manifest,
    read_trained_on,
)
from convvae_trainer.commands.compare import CompareOptions, run_compare
from convvae_trainer.commands.export import run_export
from convvae_trainer.commands.quantize import QuantizeOptions, run_quantize
from convvae_trainer.compare.comparison import Comparison
from convvae_trainer.data.dataset import Dataset, load_dataset
from convvae_trainer.data.trained_on import Fingerprints, fingerprints
from convvae_trainer.errors import BadData, BadRun
from convvae_trainer.runs.fit import Fitted, fit
from convvae_trainer.runs.folder import RunFolder
from convvae_trainer.settings.config import Config
from support.commands import evaluated, run_train
from support.tiny_bundle import publish_tiny
from support.tiny_run import SHORT, TINY, export_fitted


@pytest.fixture
def run_dir(fitted: tuple[Fitted, Dataset], tmp_path: Path) -> Path:
    """The folder of a finished run, to be changed."""
    shutil.copytree(fitted[0].run.path, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def models(published_blobs: tuple[Path, Any], tmp_path: Path) -> Path:
    """A repository with `blobs`, to be changed."""
    shutil.copytree(published_blobs[0], tmp_path / "models")
    return tmp_path / "models"


def other(tmp_path: Path, *parts: np.ndarray) -> str:
    """Write images as a data set."""
    np.save(tmp_path / "other.npy", np.concatenate(parts))
    return str(tmp_path / "other.npy")


def unlike(count: int, *, seed: int = 1) -> np.ndarray:
    """Return images that no model was trained on."""
    return np.random.default_rng(seed).integers(256, size=(count, 12, 10, 1), dtype=np.uint8)


def trained_on(run: RunFolder) -> Fingerprints:
    found = run.read_trained_on()
    assert found is not None
    return found


def mark_as_trained_on(folder: Path, images: np.ndarray) -> None:
    """Let a version have been trained on images, as one has that was trained on another split."""
    entry, data = encode_trained_on(fingerprints(images))
    content = json.loads((folder / "manifest.json").read_text()) | {"trained_on": asdict(entry)}
    (folder / "manifest.json").write_text(json.dumps(content))
    (folder / TRAINED_ON_FILE).write_bytes(data)


def without_fingerprints(folder: Path) -> None:
    """Make a run or a version what it was before there were fingerprints."""
    file = folder / ("run.json" if (folder / "run.json").exists() else "manifest.json")
    content = json.loads(file.read_text())
    del content.get("data", content)["trained_on"]
    if file.name == "manifest.json":
        content["schema_version"] = 2
    file.write_text(json.dumps(content))
    (folder / TRAINED_ON_FILE).unlink()


def compared(models: list[Path], dataset: str, tmp_path: Path) -> Comparison:
    options = CompareOptions(
        models=[str(model) for model in models],
        dataset=dataset,
        out=tmp_path / "report.html",
        scatter=False,
        frechet=False,
    )
    return run_compare(options)


def test_a_run_keeps_the_fingerprints_of_what_it_trains_on(fitted: tuple[Fitted, Dataset]) -> None:
    """They are those of the training images, and of no test image; the bundle has the same ones."""
    done, dataset = fitted
    found = trained_on(done.run)
    np.testing.assert_array_equal(found, fingerprints(dataset.train))
    assert not np.isin(fingerprints(dataset.test), found).any()
    assert RunFolder.open(done.run.path).record == done.run.record


def test_validation_images_are_not_trained_on(config: Config, tmp_path: Path) -> None:
    """A run has no fingerprints of the images that validate."""
    few = Config(**{**TINY, "dataset": config.dataset, "epochs": 1, "validation_share": 0.1})
    dataset = load_dataset(few)
    assert dataset.validation is not None
    known = fit(few, dataset, tmp_path / "run").run.read_trained_on()
    assert known is not None
    np.testing.assert_array_equal(known, fingerprints(dataset.train))
    assert not np.isin(fingerprints(dataset.validation), known).any()


def test_a_bundle_has_the_runs_fingerprints(
    fitted: tuple[Fitted, Dataset], published_blobs: tuple[Path, Any]
) -> None:
    """Quantising publishes them again."""
    folder = published_blobs[1].folder
    manifest = read_manifest(folder)
    np.testing.assert_array_equal(read_trained_on(folder, manifest), trained_on(fitted[0].run))
    assert manifest.trained_on == fitted[0].run.record.data.trained_on


def test_quantize_keeps_them_and_leaves_trained_images_out(
    models: Path, fitted: tuple[Fitted, Dataset], tmp_path: Path
) -> None:
    """The accuracy is that of unseen images; the result says how many were left out."""
    dataset = fitted[1]
    options = QuantizeOptions(model=str(models / "blobs"), dataset=dataset.name, precisions=("fp16",))
    found = run_quantize(options)
    assert found.to_json_object()["left_out"] == {"blobs": 0}
    assert (found.folder / TRAINED_ON_FILE).read_bytes() == (
        models / "blobs" / "1" / TRAINED_ON_FILE
    ).read_bytes()
    assert read_manifest(found.folder).trained_on == read_manifest(models / "blobs" / "1").trained_on
    test = load_dataset(Config(dataset=other(tmp_path, unlike(60)))).test
    mark_as_trained_on(models / "blobs" / "1", test[:2])
    later = QuantizeOptions(
        model=str(models / "blobs@1"), dataset=str(tmp_path / "other.npy"), precisions=("fp16",)
    )
    found = run_quantize(later)
    assert found.left_out == {"blobs": 2}
    assert found.converted[0].accuracy.images == len(test) - 2
    np.testing.assert_array_equal(found.dataset.test, test[2:])
    mark_as_trained_on(models / "blobs" / "1", test)
    with pytest.raises(BadData, match=r"no image of .*other\.npy is left to test on"):
        run_quantize(later)


@pytest.mark.parametrize("command", ["fit", "export"])
def test_fingerprints_can_be_left_out(
    command: str, blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_dir: Path
) -> None:
    """Neither the run nor the version has them then; the manifest has no entry."""
    models = ["--models", str(tmp_path / "m"), "--name", "x"]
    words = ["export", str(run_dir), *models]
    if command == "fit":
        words = ["fit", "--dataset", str(blobs), "--run-dir", str(tmp_path / "new"), *SHORT, *models]
    assert run_train(monkeypatch, *words, "--no-fingerprints") == 0
    folder = tmp_path / "m" / "x" / "1"
    assert read_manifest(folder).trained_on is None
    assert not (folder / TRAINED_ON_FILE).exists()
    if command == "fit":
        assert not (tmp_path / "new" / TRAINED_ON_FILE).exists()
        assert RunFolder.open(tmp_path / "new").read_trained_on() is None


def test_evaluate_leaves_trained_images_out(
    run_dir: Path,
    fitted: tuple[Fitted, Dataset],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    """The figures are of the other images, and the output says how many were left out."""
    train, new = fitted[1].train, unlike(9)
    found = evaluated(run_dir, dataset=other(tmp_path, train[:30], new, train[:1]))
    assert (found.images, found.left_out) == (9, 31)
    alone = evaluated(run_dir, dataset=other(tmp_path, new))
    assert (alone.images, alone.left_out) == (9, 0)
    assert found.bound == alone.bound
    mixed = other(tmp_path, train[:30], new)
    assert run_train(monkeypatch, "evaluate", str(run_dir), "--dataset", mixed, "--json") == 0
    assert json.loads(capsys.readouterr().out)["left_out"] == 30
    assert run_train(monkeypatch, "evaluate", str(run_dir), "--dataset", mixed) == 0
    assert "left out      30 of these, which the run was trained on\n" in capsys.readouterr().out


def test_with_no_image_left_evaluate_refuses(
    run_dir: Path, fitted: tuple[Fitted, Dataset], tmp_path: Path
) -> None:
    """One line says why."""
    with pytest.raises(BadData) as caught:
        evaluated(run_dir, dataset=other(tmp_path, fitted[1].train))
    assert str(caught.value) == (
        f"no image of {tmp_path}/other.npy is left to test on, without {len(fitted[1].train)} training images"
        " of the run: give images that were not trained on"
    )


def test_an_old_run_cannot_tell(
    run_dir: Path,
    fitted: tuple[Fitted, Dataset],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    """On other data nothing is left out, and the output says so. The split of its own data is known."""
    without_fingerprints(run_dir)
    mixed = other(tmp_path, fitted[1].train[:30], unlike(9))
    assert run_train(monkeypatch, "evaluate", str(run_dir), "--dataset", mixed) == 0
    assert "trained on    cannot be told: the run keeps no fingerprints" in capsys.readouterr().out
    found = evaluated(run_dir, dataset=mixed)
    assert (found.images, found.left_out) == (39, None)
    own = evaluated(run_dir)
    assert (own.images, own.left_out) == (len(fitted[1].test), 0)


@pytest.mark.parametrize("damage", ["absent", "short", "flipped"])
def test_damaged_fingerprints_of_a_run_are_refused(run_dir: Path, tmp_path: Path, damage: str) -> None:
    """Neither figures nor a version come from such a run."""
    file = run_dir / TRAINED_ON_FILE
    data = file.read_bytes()
    file.write_bytes(data[:-8] if damage == "short" else data[:-1] + bytes([data[-1] ^ 1]))
    if damage == "absent":
        file.unlink()
    message = {
        "absent": "cannot be read: No such file or directory",
        "short": "trained_on.bin has",
        "flipped": "trained_on.bin is damaged: its sha256",
    }[damage]
    with pytest.raises(BadRun, match=message):
        evaluated(run_dir)
    with pytest.raises(BadRun, match=message):
        run_export(run_dir, models=tmp_path / "m", name="x")
    assert not (tmp_path / "m").exists()


def test_compare_measures_images_that_no_model_was_trained_on(models: Path, tmp_path: Path) -> None:
    """The report and its numbers have the count of each model; an old version cannot tell."""
    shutil.copytree(models / "blobs", models / "old")
    manifest = models / "old" / "1" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"model": "blobs"', '"model": "old"'))
    without_fingerprints(models / "old" / "1")
    test = load_dataset(Config(dataset=other(tmp_path, unlike(60)))).test
    mark_as_trained_on(models / "blobs" / "1", test[1:3])
    found = compared([models / "blobs", models / "old"], str(tmp_path / "other.npy"), tmp_path)
    np.testing.assert_array_equal(found.sample.images, test[[0, *range(3, len(test))]])
    numbers = json.loads((tmp_path / "report.json").read_text())
    assert numbers["left_out"] == found.left_out == {"blobs": 2, "old": None}
    assert numbers["images"] == len(test) - 2
    words = "Left out: 2 training images of blobs; for old it cannot be told."
    assert words in (tmp_path / "report.html").read_text()


def test_compare_refuses_damage_and_images_that_were_all_trained_on(
    models: Path, fitted: tuple[Fitted, Dataset], tmp_path: Path
) -> None:
    """Both are refused in one line, before any work."""
    mark_as_trained_on(models / "blobs" / "1", fitted[1].test)
    count = len(fitted[1].test)
    with pytest.raises(BadData, match=f"is left to test on, without {count} training images of blobs"):
        compared([models / "blobs"], fitted[1].name, tmp_path)
    file = models / "blobs" / "1" / TRAINED_ON_FILE
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(BundleError, match=r"blobs/1: trained_on\.bin has \d+ bytes, the manifest states"):
        compared([models / "blobs"], fitted[1].name, tmp_path)
    with pytest.raises(BundleError, match=r"blobs/1: trained_on\.bin has"):
        run_quantize(QuantizeOptions(model=str(models / "blobs"), dataset=fitted[1].name))
    assert not (tmp_path / "report.html").exists()


def test_a_model_that_resized_its_images_in_another_way_cannot_tell(tmp_path: Path) -> None:
    """The same pictures then have other pixels, so that no fingerprint would match."""
    images = unlike(40)
    root, shape = tmp_path / "models", ImageShape(height=8, width=8, channels=1)
    for name in ("first", "second"):
        publish_tiny(root, name, shape=shape, trained_on=fingerprints(images))
    manifest = root / "second" / "1" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"mode": "crop"', '"mode": "stretch"'))
    np.save(tmp_path / "new.npy", unlike(60, seed=2))
    options = CompareOptions(
        models=[str(root / "first"), str(root / "second")],
        dataset=str(tmp_path / "new.npy"),
        out=tmp_path / "report.html",
        image_size=(8, 8),
        scatter=False,
        frechet=False,
    )
    assert run_compare(options).left_out == {"first": 0, "second": None}


def test_a_resumed_run_has_its_fingerprints(config: Config, dataset: Dataset, tmp_path: Path) -> None:
    """They stay as they were, and so does their entry."""
    first = fit(config, dataset, tmp_path / "run")
    again = fit(config, dataset, tmp_path / "run", resume=True)
    assert again.run.record.data.trained_on == first.run.record.data.trained_on
    assert export_fitted((again, dataset), tmp_path / "m").manifest.trained_on is not None
