"""`convvae_trainer.evaluate` and `export`: the commands as functions, on data in files and in memory."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convvae_service import open_model
from convvae_trainer import (
    BadConfig,
    BadData,
    BadRun,
    Dataset,
    Evaluation,
    Exported,
    FittedRun,
    evaluate,
    export,
    fit,
    load_dataset,
)
from convvae_trainer.runs.fit import Fitted
from support.tiny_run import TINY


@pytest.fixture(scope="module")
def array_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[FittedRun, Any]:
    """A run on an array with labels, and the array; to be read only."""
    images = np.random.default_rng(0).integers(0, 256, (80, 12, 10), np.uint8)
    folder = tmp_path_factory.mktemp("array") / "run"
    return fit(images, labels=np.arange(80) % 2, run_dir=folder, progress=False, **TINY), images


def test_a_run_is_evaluated(fitted: tuple[Fitted, Dataset], capsys: pytest.CaptureFixture[str]) -> None:
    """The figures are those of the run; stdout stays the program's own but for lines on the progress."""
    found = evaluate(fitted[0].run.path, progress=False)
    assert isinstance(found, Evaluation)
    assert found.bound == fitted[0].evaluation.bound
    assert capsys.readouterr().out == ""


def test_results_are_shown_in_one_line(
    fitted: tuple[Fitted, Dataset], published_blobs: tuple[Path, Exported]
) -> None:
    """A notebook prints a data set, an evaluation and a version without any array."""
    name, found = fitted[1].name, fitted[0].evaluation
    assert repr(fitted[1]) == (f"Dataset({name!r}, 70 training, 0 validation and 10 test images of 12x10x1)")
    assert repr(found).startswith(f"Evaluation({name!r}, 10 images: ELBO {found.bound.elbo:.2f}, distortion")
    assert repr(found).endswith(f"units active, PSNR {found.reconstruction.psnr_db:.2f} dB)")
    assert repr(published_blobs[1]) == f"Exported(folder={published_blobs[1].folder!r})"


def test_optional_figures_are_asked_for_by_name(fitted: tuple[Fitted, Dataset], tmp_path: Path) -> None:
    """Importance samples give log p(x), and all figures go to a file too."""
    found = evaluate(
        str(fitted[0].run.path),
        importance_samples=2,
        limit_images=3,
        out=tmp_path / "out.json",
        progress=False,
    )
    assert found.optional.log_likelihood is not None
    assert found.optional.log_likelihood.samples == 2
    assert json.loads((tmp_path / "out.json").read_text()) == found.to_json_object()


def test_the_array_of_a_run_is_given_again(array_run: tuple[FittedRun, Any]) -> None:
    """With the array the run's own test images are evaluated; without it the error says so."""
    run, images = array_run
    again = evaluate(run, dataset=images, labels=np.arange(80) % 2, progress=False)
    assert again.bound == run.evaluation.bound
    assert again.dataset == "<array>"
    with pytest.raises(BadData, match=r"the images were an array of a program, .*: give dataset$"):
        evaluate(run, progress=False)


def test_other_arrays_are_evaluated_whole(array_run: tuple[FittedRun, Any]) -> None:
    """An array that the run does not know is evaluated on all of its images, without those trained on."""
    run, images = array_run
    other = 255 - images[:20]
    found = evaluate(run, dataset=other, progress=False)
    assert (found.images, found.left_out, found.split) == (20, 0, "all 20 images")
    mixed = evaluate(run, dataset=np.concatenate([other, images]), progress=False)
    assert mixed.left_out == len(images) - (mixed.images - 20)
    assert mixed.left_out > 50


def test_a_loaded_data_set_is_evaluated_on_its_test_images(
    fitted: tuple[Fitted, Dataset], tmp_path: Path
) -> None:
    """The run's own gives the run's figures; another one gives its own test part."""
    own = load_dataset(fitted[1].name)
    assert evaluate(fitted[0].run.path, dataset=own, progress=False).bound == fitted[0].evaluation.bound
    np.save(tmp_path / "other.npy", 255 - np.load(fitted[1].name))
    other = load_dataset(tmp_path / "other.npy")
    assert evaluate(fitted[0].run.path, dataset=other, progress=False).images == len(other.test)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"dataset": np.zeros((3, 8, 8), np.uint8)}, BadData, "are 8x8x1, but the run needs 12x10x1"),
        ({"importance_samples": 0}, BadConfig, "importance_samples"),
        ({"binarize": "maybe"}, BadConfig, "binarize"),
        ({"labels": np.zeros(3, int)}, BadConfig, "labels go with an array"),
        ({"embedding": True}, BadData, "has no labels, and embedding and frechet need them"),
    ],
)
def test_wrong_arguments_are_exceptions(
    fitted: tuple[Fitted, Dataset], arguments: dict[str, Any], kind: type[Exception], message: str
) -> None:
    """Errors have the documented types, and name arguments instead of flags."""
    with pytest.raises(kind, match=message) as caught:
        evaluate(fitted[0].run.path, progress=False, **arguments)
    assert "--" not in str(caught.value)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    """The error names the folder."""
    with pytest.raises(BadRun, match="does not exist"):
        evaluate(tmp_path / "none")
    with pytest.raises(BadRun, match="does not exist"):
        export(tmp_path / "none", models=tmp_path / "models", name="x")
    assert not (tmp_path / "models").exists()


def test_a_run_becomes_a_model_that_opens(array_run: tuple[FittedRun, Any], tmp_path: Path) -> None:
    """The version that `export` returns is opened in this process, and encodes the images."""
    run, images = array_run
    version = export(run, models=str(tmp_path / "models"), name="noise", dataset=images, fingerprints=False)
    assert isinstance(version, Exported)
    assert version.manifest.trained_on is None
    with open_model(version.folder, device="cpu") as model:
        assert model.encode(images[:3]).mean.shape == (3, TINY["latent_dim"])
    with pytest.raises(BadRun, match="are not the images of the run"):
        export(run, models=tmp_path / "models", name="noise", dataset=255 - images)
    with pytest.raises(BadConfig, match=r"^name: 'a b' is not a model name"):
        export(run, models=tmp_path / "models", name="a b", dataset=images)
