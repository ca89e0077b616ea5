"""The command `evaluate`: further figures of a run, and requests that it refuses."""

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from convvae_service.bundle import read_bundle
from convvae_trainer.cli.results import print_evaluation
from convvae_trainer.commands.export import run_export
from convvae_trainer.commands.fit import ExportTarget, run_fit
from convvae_trainer.data.dataset import load_dataset
from convvae_trainer.errors import BadConfig, BadData, BadRun, TrainerError
from convvae_trainer.evaluation import classifier as classifier_module
from convvae_trainer.evaluation.classifier import train_classifier
from convvae_trainer.evaluation.embedding import vector_accuracy
from convvae_trainer.evaluation.frechet import frechet_distance
from convvae_trainer.evaluation.inference import posterior_means, reconstructions, samples
from convvae_trainer.evaluation.options import EvalOptions
from convvae_trainer.runs.fit import fit
from convvae_trainer.runs.folder import RunFolder
from convvae_trainer.runs.start import load_run
from convvae_trainer.settings.config import Config
from support.commands import evaluated
from support.tiny_run import TINY


def write_stripes(path: Path, *, count: int, labelled: bool = True) -> Path:
    """Write noisy 8x8 images with rows or columns lit, and labels that say which."""
    random = np.random.default_rng(5)
    images = random.integers(0, 80, (count, 8, 8), dtype=np.uint8)
    labels = np.arange(count) % 2
    images[labels == 0, ::2] += 150
    images[labels == 1, :, ::2] += 150
    if labelled:
        np.savez(path, images=images, labels=labels)
    else:
        np.savez(path, images=images)
    return path


Run = Callable[..., Path]


def train_stripes(folder: Path, *, count: int, labelled: bool, settings: dict[str, Any]) -> Path:
    """Train on stripes in this folder, and return the run's folder."""
    path = write_stripes(folder / "stripes.npz", count=count, labelled=labelled)
    changes = {"batch_size": 100, "epochs": 1, "tensorboard": False, **settings}
    config = Config(dataset=str(path), **{**TINY, **changes})
    fit(config, load_dataset(config), folder / "run")
    return folder / "run"


@pytest.fixture(scope="session")
def trained_runs() -> dict[str, Path]:
    """Runs that were trained before, by their settings; to be read only."""
    return {}


@pytest.fixture
def make_run(trained_runs: dict[str, Path], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a function that trains on stripes and returns the run's folder.

    Runs with the same settings are trained once, and copied. With `own_data` the test may change the data.
    """

    def make(count: int = 700, *, labelled: bool = True, own_data: bool = False, **settings: Any) -> Path:
        arguments: dict[str, Any] = {"count": count, "labelled": labelled, "settings": settings}
        if own_data:
            return train_stripes(tmp_path, **arguments)
        key = repr(arguments)
        if key not in trained_runs:
            trained_runs[key] = train_stripes(tmp_path_factory.mktemp("stripes"), **arguments)
        return Path(shutil.copytree(trained_runs[key], tmp_path / "run"))

    return make


def kept(run_dir: Path) -> Any:
    return json.loads((run_dir / "evaluation.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("binarize", ["none", "dynamic"])
def test_further_figures_are_kept_and_published(
    make_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, binarize: str
) -> None:
    """Requested metrics are in the result, its file, the run folder, the manifest and the card."""
    monkeypatch.setattr(classifier_module, "STEPS", 20)
    run_dir = make_run(binarize=binarize)
    before = kept(run_dir)
    out = tmp_path / "figures.json"
    found = evaluated(run_dir, options=EvalOptions(importance_samples=5, limit_images=20), out=out, seed=9)
    assert found.optional.log_likelihood is not None
    figures = found.optional.log_likelihood
    assert (figures.samples, figures.images, figures.seed) == (5, 20, 9)
    assert json.loads(out.read_text()) == found.to_json_object()
    assert kept(run_dir) == {**before, "log_likelihood": found.to_json_object()["log_likelihood"]}

    found = evaluated(run_dir, options=EvalOptions(embedding=True, frechet=True))
    assert found.optional.embedding is not None
    assert found.optional.frechet is not None
    assert kept(run_dir)["log_likelihood"]["samples"] == 5
    version = run_export(run_dir, models=tmp_path / "models", name="stripes")
    metrics = read_bundle(version.folder).manifest.training.metrics
    assert metrics["test_elbo_nats"] == before["elbo"]
    assert metrics["test_log_likelihood_nats"] == figures.nats
    assert (metrics["test_importance_samples"], metrics["test_log_likelihood_images"]) == (5, 20)
    assert metrics["test_frechet_reconstructions"] == found.optional.frechet.reconstructions
    assert metrics["test_knn_accuracy"] == found.optional.embedding.posterior_means.knn
    card = (version.folder / "MODEL_CARD.md").read_text()
    assert f"| log p(x) | {figures.nats:.2f} nats per image (5 importance samples, the first 20" in card
    assert (
        f"| Fréchet distance of reconstructions | {found.optional.frechet.reconstructions:.2f} (67 images"
        in card
    )
    assert f"| Class from pixels | {found.optional.embedding.pixels.knn:.1%} by 5 neighbours" in card
    assert f"| SSIM of reconstructions | {before['ssim']:.4f} |" in card
    print_evaluation(Console(file=(screen := io.StringIO()), width=200), found)
    text = screen.getvalue()
    assert f"Fréchet       {found.optional.frechet.reconstructions:.2f} of reconstructions" in text
    assert f" with {found.optional.frechet.classifier_accuracy:.1%} test accuracy" in text


def test_figures_of_labels_are_what_they_say(make_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors are of posterior means, and distances between the test images and as many others."""
    monkeypatch.setattr(classifier_module, "STEPS", 20)
    run_dir = make_run()
    found = evaluated(run_dir, options=EvalOptions(embedding=True, frechet=True))
    assert found.optional.embedding is not None
    assert found.optional.frechet is not None
    run, train_state, _ = load_run(run_dir)
    data = load_dataset(run.config)
    assert data.train_labels is not None
    assert data.test_labels is not None
    expected = vector_accuracy(
        posterior_means(train_state, data.train),
        posterior_means(train_state, data.test),
        train_labels=data.train_labels,
        test_labels=data.test_labels,
    )
    assert found.optional.embedding.posterior_means.knn == pytest.approx(expected.knn, abs=0.03)
    assert found.optional.embedding.pixels.knn == 1.0
    classifier = train_classifier(data.train, data.train_labels)
    assert (
        found.optional.frechet.classifier_accuracy == classifier.accuracy(data.test, data.test_labels) == 1.0
    )
    features = classifier.features(data.test)
    distance = frechet_distance(features, classifier.features(reconstructions(train_state, data.test)))
    assert found.optional.frechet.reconstructions == pytest.approx(distance, rel=1e-3)
    drawn = frechet_distance(features, classifier.features(samples(train_state, len(data.test), seed=0)))
    assert found.optional.frechet.samples == pytest.approx(drawn, rel=1e-3)
    assert found.optional.frechet.training_images < found.optional.frechet.reconstructions
    assert (found.optional.frechet.images, found.optional.frechet.features) == (len(data.test), 64)


@pytest.mark.slow
def test_an_autoencoder_has_figures_and_a_card(make_run: Run, tmp_path: Path) -> None:
    """No bound, no draws; it is evaluated and published without them."""
    run_dir = make_run(100, objective="ae")
    figures = evaluated(run_dir)
    assert (figures.bound.elbo, figures.bound.rate, figures.bound.bits_per_dim, figures.sample_sharpness) == (
        None,
    ) * 4
    assert figures.to_json_object() == kept(run_dir)
    version = run_export(run_dir, models=tmp_path / "models", name="ae")
    manifest = read_bundle(version.folder).manifest
    assert manifest.training.metrics["test_elbo_nats"] is None
    assert manifest.training.metrics["test_distortion_nats"] == figures.bound.distortion
    card = (version.folder / "MODEL_CARD.md").read_text()
    assert "| ELBO |" not in card
    assert "A convolutional autoencoder (`ae`)" in card
    assert "It has no prior: `samples.png` shows decoded standard normal vectors." in card
    for absent in ("raws from the prior", "posterior", "Samples are", "ELBO"):
        assert absent not in card
    with pytest.raises(BadConfig, match="has no prior, and so no log p"):
        evaluated(run_dir, options=EvalOptions(importance_samples=5))


@pytest.mark.parametrize(
    ("options", "arguments", "message"),
    [
        (EvalOptions(importance_samples=0), {}, "--importance-samples is 0: it must be 1 to 5000"),
        (EvalOptions(limit_images=5), {}, "--limit-images needs --importance-samples"),
        (
            EvalOptions(importance_samples=5, limit_images=12),
            {},
            "--limit-images is 12: there are 11 test images",
        ),
        (
            EvalOptions(importance_samples=5, limit_images=0),
            {},
            "--limit-images is 0: there are 11 test images",
        ),
        (EvalOptions(accuracy_floor=0.5), {}, "--accuracy-floor needs --frechet"),
        (EvalOptions(frechet=True, accuracy_floor=50), {}, "--accuracy-floor is 50: it must be 0 to 1"),
        (EvalOptions(frechet=True), {}, r"89 training and 11 test images, and more than 64 are needed"),
        (EvalOptions(embedding=True), {"dataset": "digits"}, "leave --dataset out"),
        (
            EvalOptions(),
            {"out": Path("/no/such/file.json")},
            "--out: /no/such/file.json cannot be written: Permission denied",
        ),
    ],
)
def test_bad_requests_are_refused_before_any_work(
    make_run: Run,
    monkeypatch: pytest.MonkeyPatch,
    options: EvalOptions,
    arguments: dict[str, Any],
    message: str,
) -> None:
    """Flags that do not go together, or ask for what is not there."""
    run_dir = make_run(100)
    monkeypatch.setattr("convvae_trainer.commands.evaluate.evaluate", None)
    monkeypatch.setattr(
        "convvae_trainer.commands.evaluate.write_obstacle",
        lambda folder: "Permission denied" if "no" in folder.parts else "",
    )
    with pytest.raises(TrainerError, match=message):
        evaluated(run_dir, options=options, **arguments)


def test_labels_that_are_missing_are_missed_at_once(make_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says which kinds of data have them."""
    run_dir = make_run(100, labelled=False)
    monkeypatch.setattr("convvae_trainer.commands.evaluate.evaluate", None)
    with pytest.raises(BadData, match="has no labels, and --embedding and --frechet need them"):
        evaluated(run_dir, options=EvalOptions(embedding=True))


def test_nothing_is_kept_of_images_drawn_otherwise(make_run: Run) -> None:
    """Kept metrics are of images that are binarized as in the run."""
    run_dir = make_run(100)
    before = kept(run_dir)
    evaluated(run_dir, options=EvalOptions(importance_samples=2), binarize="dynamic")
    assert kept(run_dir) == before


def test_a_run_that_was_killed_while_it_evaluated_gets_its_figures(make_run: Run) -> None:
    """It has ended, and what is found later is kept."""
    run_dir = make_run(100)
    before = kept(run_dir)
    (run_dir / "evaluation.json").unlink()
    found = evaluated(run_dir, options=EvalOptions(importance_samples=2))
    assert found.optional.log_likelihood is not None
    assert kept(run_dir) == found.to_json_object()
    assert kept(run_dir)["elbo"] == before["elbo"]


def test_data_that_were_moved_are_the_runs_own(make_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under their new name they give every figure, which is kept; other data give no Fréchet distance."""
    monkeypatch.setattr(classifier_module, "STEPS", 20)
    run_dir = make_run(own_data=True)
    place = Path(RunFolder.open(run_dir).config.dataset)
    moved = place.rename(place.with_name(f"moved-{place.name}"))
    found = evaluated(
        run_dir, dataset=str(moved), options=EvalOptions(frechet=True, importance_samples=2), seed=3
    )
    assert found.optional.frechet is not None
    assert kept(run_dir)["frechet"] == found.to_json_object()["frechet"]
    train_state = load_run(run_dir)[1]
    data = load_dataset(replace(RunFolder.open(run_dir).config, dataset=str(moved)))
    assert data.train_labels is not None
    classifier = train_classifier(data.train, data.train_labels, device=train_state.device)
    features = classifier.features(data.test)
    drawn = frechet_distance(features, classifier.features(samples(train_state, len(data.test), seed=3)))
    assert found.optional.frechet.samples == pytest.approx(drawn, rel=1e-3)


@pytest.mark.slow
def test_a_resume_without_a_step_keeps_what_was_asked_for(
    make_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Optional metrics of a run that had ended are kept, and go into its bundle."""
    run_dir = make_run(100)
    evaluated(run_dir, options=EvalOptions(importance_samples=2))
    before = kept(run_dir)
    assert before["log_likelihood"] is not None
    run = RunFolder.open(run_dir)
    done = run_fit(
        run.config,
        run_dir,
        resume=True,
        download=False,
        target=ExportTarget(tmp_path / "models", "blobs"),
        command="",
        console=Console(quiet=True),
    )
    assert kept(run_dir) == before
    assert done is not None
    assert done.exported is not None
    metrics = done.exported.manifest.training.metrics
    assert metrics["test_log_likelihood_nats"] == before["log_likelihood"]["nats"]
    # Once a step is taken they are of other weights.
    run.checkpoint.unlink()
    fit(run.config, load_dataset(run.config), run_dir, resume=True)
    assert kept(run_dir) == {**before, "log_likelihood": None}


def test_a_model_of_rgb_is_evaluated_on_grey_files(tmp_path: Path) -> None:
    """Other data's files are read in the run's colours, as the service reads them."""
    random = np.random.default_rng(0)
    for name, mode in (("colour", "RGB"), ("grey", "L")):
        (tmp_path / name).mkdir()
        for number in range(20):
            pixels = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8))
            pixels.convert(mode).save(tmp_path / name / f"{number}.png")
    config = Config(dataset=str(tmp_path / "colour"), **{**TINY, "epochs": 1, "tensorboard": False})
    fit(config, load_dataset(config), tmp_path / "run")
    found = evaluated(tmp_path / "run", dataset=str(tmp_path / "grey"))
    assert found.split == "all 20 images; all 20 pictures are grey, read as RGB"


def test_changed_labels_are_not_the_runs(make_run: Run, tmp_path: Path) -> None:
    """Figures of labels are of those that the run started with; a run that recorded none takes any."""
    run_dir = make_run(own_data=True)
    path = tmp_path / "stripes.npz"
    with np.load(path) as file:
        images, labels = file["images"], file["labels"]
    np.savez(path, images=images, labels=1 - labels)
    for options in (EvalOptions(embedding=True), EvalOptions(frechet=True)):
        with pytest.raises(BadRun, match=r"the labels of .* are not the labels of the run in"):
            evaluated(run_dir, options=options)
    assert evaluated(run_dir).optional.embedding is None
    record = json.loads((run_dir / "run.json").read_text())
    record["data"]["labels_sha256"] = None
    (run_dir / "run.json").write_text(json.dumps(record))
    assert evaluated(run_dir, options=EvalOptions(embedding=True)).optional.embedding is not None
