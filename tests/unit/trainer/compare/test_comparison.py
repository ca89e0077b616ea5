"""Published models side by side: which are found, what is refused, and what the figures are."""

import dataclasses
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convvae_service.bundle import METRICS_FILE, BundleError, ImageShape
from convvae_trainer.compare import feature_classifier, latent_scatter
from convvae_trainer.compare.bundle_model import open_model
from convvae_trainer.compare.claims import Claim, lecture_claims, three_digits
from convvae_trainer.compare.feature_classifier import FeatureClassifier, train_feature_classifier
from convvae_trainer.compare.latent_paths import TRAVERSAL
from convvae_trainer.compare.latent_scatter import LatentScatter, separation, train_scatters
from convvae_trainer.compare.model_report import measure
from convvae_trainer.compare.pictures import loss_curve
from convvae_trainer.compare.published import check_same_shape, find_versions
from convvae_trainer.compare.run import Options, load_data, run_compare
from convvae_trainer.compare.sample import TestSample as Sample
from convvae_trainer.compare.sample import check_image_shape, draw_sample
from convvae_trainer.data.dataset import Dataset
from convvae_trainer.errors import BadConfig, BadData
from convvae_trainer.evaluation import classifier as classifier_module
from convvae_trainer.runs.fit import Fitted

Pair = tuple[Path, Dataset]


def sample_of(dataset: Dataset) -> Sample:
    return draw_sample(dataset, limit=1000, columns=4, seed=0)


def test_figures_are_those_of_the_evaluation(published_pair: Pair, fitted: tuple[Fitted, Dataset]) -> None:
    """Graphs and manifest's constants give the bound that PyTorch measured with the same draws."""
    root, dataset = published_pair
    (published,) = find_versions([str(root / "blobs")])
    model_report = measure(open_model(published), sample_of(dataset), classifier=None)
    expected = fitted[0].evaluation.bound
    for name in ("elbo", "distortion", "rate", "bits_per_dim"):
        assert getattr(
            model_report.posterior if name != "distortion" else model_report, name
        ) == pytest.approx(getattr(expected, name), rel=1e-4), name
    assert model_report.active_units == expected.active_units
    assert model_report.posterior.rate_per_dimension == pytest.approx(
        expected.rate_per_dimension, rel=1e-3, abs=1e-5
    )
    assert model_report.posterior.deviation is not None
    assert 0 < model_report.posterior.deviation < 2


def test_an_autoencoder_has_neither_rate_nor_bound(published_pair: Pair) -> None:
    """Figures that need a posterior are None, the others are measured."""
    root, dataset = published_pair
    (published,) = find_versions([str(root / "blobs-ae")])
    sample = draw_sample(dataset, limit=4, columns=4, seed=0)
    model_report = measure(open_model(published), sample, classifier=None)
    assert (
        model_report.posterior.rate,
        model_report.posterior.elbo,
        model_report.posterior.bits_per_dim,
        model_report.posterior.deviation,
    ) == (None,) * 4
    assert model_report.posterior.rate_per_dimension == ()
    assert model_report.distortion > 0
    mse = np.square((model_report.reconstructions.astype(float) - sample.images) / 255).mean()
    assert model_report.quality.mse == pytest.approx(mse, rel=1e-5)


def test_traversals_move_one_dimension_of_the_highest_rates(published_pair: Pair) -> None:
    """Dimensions are sorted by rate, and the row's images differ in that dimension alone."""
    root, dataset = published_pair
    (published,) = find_versions([str(root / "blobs")])
    model, sample = open_model(published), sample_of(dataset)
    model_report = measure(model, sample, classifier=None)
    order = np.argsort(model_report.posterior.rate_per_dimension)[::-1]
    assert [strip.label for strip in model_report.traversals] == [f"z{dimension}" for dimension in order]
    latent = np.repeat(model.encode(sample.images[sample.shown[:1]])[0], len(TRAVERSAL), axis=0)
    latent[:, order[0]] = TRAVERSAL
    np.testing.assert_array_equal(model_report.traversals[0].images, model.decode(latent))


def test_interpolations_begin_and_end_at_two_inputs(published_pair: Pair) -> None:
    """Each strip goes from one test image over both reconstructions to the next one."""
    root, dataset = published_pair
    (published,) = find_versions([str(root / "blobs")])
    sample = sample_of(dataset)
    model_report = measure(open_model(published), sample, classifier=None)
    assert len(model_report.interpolations) == 2
    for pair, strip in enumerate(model_report.interpolations):
        first, last = 2 * pair, 2 * pair + 1
        np.testing.assert_array_equal(strip.images[[0, -1]], sample.images[sample.shown[[first, last]]])
        steps = strip.images[[1, -2]].astype(int) - model_report.reconstructions[[first, last]]
        assert np.abs(steps).max() <= 1


def test_versions_are_found_and_told_apart(published_pair: Pair, tmp_path: Path) -> None:
    """The highest version is the default; a name that is compared with itself carries its version."""
    root, _ = published_pair
    shutil.copytree(root / "blobs" / "1", tmp_path / "blobs" / "1")
    shutil.copytree(root / "blobs" / "1", tmp_path / "blobs" / "2")
    assert [one.version for one in find_versions([str(tmp_path / "blobs")])] == [2]
    both = find_versions([str(tmp_path / "blobs@1"), str(tmp_path / "blobs")])
    assert [one.label for one in both] == ["blobs@1", "blobs@2"]
    elsewhere = find_versions([str(tmp_path / "blobs@1"), str(root / "blobs")])
    assert [one.label for one in elsewhere] == [f"{tmp_path.name}/blobs@1", f"{root.name}/blobs@1"]


@pytest.mark.parametrize(
    ("references", "message"),
    [
        (["{root}/nothing"], "nothing does not exist: give ROOT/MODEL"),
        (["{root}"], "holds no published version: give ROOT/MODEL"),
        (["{root}/blobs@7"], "blobs has no version 7: it has 1"),
        (["{root}/blobs@x"], "blobs has no version x"),
        (["{root}/blobs@²"], "blobs has no version ²"),
        (["{root}/blobs", "{root}/blobs@1"], "blobs@1 is given twice"),
    ],
)
def test_models_that_are_none_are_refused(published_pair: Pair, references: list[str], message: str) -> None:
    """The line says which there are."""
    with pytest.raises(BadConfig) as raised:
        find_versions([reference.format(root=published_pair[0]) for reference in references])
    assert message in str(raised.value)


def test_a_damaged_graph_is_named(published_pair: Pair, tmp_path: Path) -> None:
    """A bundle is verified before its graphs run."""
    folder = tmp_path / "blobs" / "1"
    shutil.copytree(published_pair[0] / "blobs" / "1", folder)
    data = bytearray((folder / "decoder.onnx").read_bytes())
    data[100] ^= 1
    (folder / "decoder.onnx").write_bytes(data)
    (published,) = find_versions([str(tmp_path / "blobs")])
    with pytest.raises(BundleError, match=r"blobs/1: decoder.onnx is damaged"):
        open_model(published)


def test_models_of_other_shapes_are_refused() -> None:
    """Both shapes are named."""
    one, other = (
        SimpleNamespace(label=label, manifest=SimpleNamespace(image=image))
        for label, image in (("a", "12x10x1"), ("b", "16x16x1"))
    )
    models: Any = [one, other]
    with pytest.raises(BundleError, match=r"images of a are 12x10x1, images of b are 16x16x1"):
        check_same_shape(models)
    check_same_shape(models[:1] * 2)


def test_data_of_another_shape_are_refused_before_work_starts(published_pair: Pair, tmp_path: Path) -> None:
    """The line says which option brings them to the model's size; nothing is written."""
    root, _ = published_pair
    np.save(tmp_path / "square.npy", np.zeros((20, 16, 16), np.uint8))
    np.save(tmp_path / "colour.npy", np.zeros((20, 12, 10, 3), np.uint8))
    for name, message in (
        ("square.npy", "are 16x16x1, images of blobs are 12x10x1: --image-size 12x10"),
        (
            "colour.npy",
            "are 12x10x3, images of blobs are 12x10x1: give data with the same number of channels",
        ),
    ):
        options = Options(
            models=[str(root / "blobs")], dataset=str(tmp_path / name), out=tmp_path / "out" / "report.html"
        )
        with pytest.raises(BadData) as raised:
            run_compare(options)
        assert message in str(raised.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["report", "report.json", "folder.html"])
def test_a_report_that_cannot_be_written_is_refused_first(tmp_path: Path, name: str) -> None:
    """The file's name has to be an HTML file's, and free of folders; the models are not even looked for."""
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(BadConfig, match="--out"):
        run_compare(Options(models=["nowhere"], dataset="digits", out=tmp_path / name))


def test_curves_are_the_runs_epochs(
    published_pair: Pair, fitted: tuple[Fitted, Dataset], tmp_path: Path
) -> None:
    """The run's metrics travel with the bundle; a damaged line ends them, an absent file is no curve."""
    expected = [line for line in fitted[0].run.read_metrics() if line["kind"] == "epoch"]
    shutil.copytree(published_pair[0] / "blobs", tmp_path / "blobs")
    model = open_model(find_versions([str(tmp_path / "blobs")])[0])
    assert len(expected) == 4
    assert model.loss_curves() == expected
    path = tmp_path / "blobs" / "1" / METRICS_FILE
    text = path.read_text()
    path.write_text(text[: text.rindex('"kind"')])
    assert model.loss_curves() == expected[:3]
    path.write_bytes(b"\xff\xfe")
    assert model.loss_curves() == []
    path.unlink()
    assert model.loss_curves() == []


def test_a_curve_has_gaps_where_the_metrics_have_none() -> None:
    """A game that is over has no loss, which metrics say by null; a loss of 0 is a loss."""
    lines = [
        {"epoch": 1, "adversarial": 0.0, "discrimination": 0.0},
        {"epoch": 2, "adversarial": None, "discrimination": None, "elbo": -3.0},
    ]
    fake: Any = SimpleNamespace(label="d", bundle=SimpleNamespace(loss_curves=lambda: lines))
    curve = loss_curve(fake)
    assert curve is not None
    assert curve.values["adversarial"] == [0.0, None]
    assert curve.values["discrimination"] == [0.0, None]
    assert curve.values["loss"] == [None, 3.0]


def sorted_by_class(dataset: Dataset, classes: int) -> Dataset:
    """Return as many test images of each of the classes, one class after the other."""
    labels = np.repeat(np.arange(classes, dtype=np.int64), 6)
    test = np.broadcast_to(labels[:, None, None, None], (len(labels), *dataset.test.shape[1:])).astype(
        np.uint8
    )
    return dataclasses.replace(dataset, test=test, test_labels=labels)


def test_images_are_drawn_from_the_whole_test_set(published_pair: Pair) -> None:
    """The sample of a set that is sorted by class has images of all classes, with their labels."""
    dataset = sorted_by_class(published_pair[1], 10)
    sample = draw_sample(dataset, limit=30, columns=10, seed=1)
    assert sample.labels is not None
    assert len(np.unique(sample.rows)) == 30
    assert sample.rows.max() > 50
    np.testing.assert_array_equal(sample.images, dataset.test[sample.rows])
    np.testing.assert_array_equal(sample.images[:, 0, 0, 0], sample.labels)
    assert len(np.unique(sample.labels)) == 10
    whole = draw_sample(dataset, limit=60, columns=10, seed=1)
    assert whole.images is dataset.test


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_shown_images_cover_the_classes(published_pair: Pair, seed: int) -> None:
    """One of each class, then a second one; with fewer columns than classes, no class twice."""
    dataset = sorted_by_class(published_pair[1], 4)
    for columns, counts in ((3, [1, 1, 1]), (4, [1] * 4), (8, [2] * 4), (9, [2, 2, 2, 3]), (24, [6] * 4)):
        sample = draw_sample(dataset, limit=100, columns=columns, seed=seed)
        shown = sample.images[sample.shown][:, 0, 0, 0]
        assert sorted(np.unique(shown, return_counts=True)[1].tolist()) == counts


def test_shown_images_are_drawn_by_the_seed(published_pair: Pair) -> None:
    """A seed draws different images, the same each time; no more are shown than there are."""
    _, dataset = published_pair
    assert draw_sample(dataset, limit=5, columns=8, seed=0).shown.tolist() == [0, 1, 2, 3, 4]
    drawn = [draw_sample(dataset, limit=100, columns=3, seed=seed).shown.tolist() for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(set(drawn[0])) == 3


def labelled(dataset: Dataset) -> Dataset:
    """Return half of the images inverted, which is what the labels say."""
    flips = [np.arange(len(images)) % 2 == 1 for images in (dataset.train, dataset.test)]
    train, test = (
        np.where(flip[:, None, None, None], 255 - images, images)
        for flip, images in zip(flips, (dataset.train, dataset.test), strict=True)
    )
    labels = [flip.astype(np.int64) for flip in flips]
    return dataclasses.replace(dataset, train=train, test=test, train_labels=labels[0], test_labels=labels[1])


def test_a_classifier_needs_labels(published_pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Distances are measured if there are useful labels; otherwise a phrase says why not."""
    monkeypatch.setattr(classifier_module, "STEPS", 60)
    root, plain = published_pair
    data = labelled(plain)
    sample = sample_of(data)
    assert (
        train_feature_classifier(data, sample) == "with 64 test images or fewer the distance is mostly bias"
    )
    monkeypatch.setattr(feature_classifier, "NUM_FEATURES", 2)
    classifier = train_feature_classifier(data, sample)
    assert isinstance(classifier, FeatureClassifier)
    assert classifier.accuracy == 1.0
    models = [open_model(one) for one in find_versions([str(root / "blobs"), str(root / "blobs-ae")])]
    vae, ae = (measure(model, sample, classifier=classifier) for model in models)
    assert vae.frechet.frechet_reconstructions is not None
    assert vae.frechet.frechet_reconstructions > classifier.reference
    assert vae.frechet.frechet_samples is not None
    assert ae.frechet.frechet_samples is None
    assert ae.frechet.accuracy is not None
    assert 0 <= ae.frechet.accuracy <= 1
    assert "no labels" in str(train_feature_classifier(plain, sample_of(plain)))
    random = np.random.default_rng(0)
    mixed = dataclasses.replace(
        plain,
        train_labels=random.integers(0, 2, len(plain.train)),
        test_labels=np.arange(len(plain.test)) % 2,
    )
    monkeypatch.setattr(classifier_module, "STEPS", 1)
    assert "the classifier is right on" in str(train_feature_classifier(mixed, sample_of(mixed)))


def test_scatters_show_what_either_term_does(published_pair: Pair) -> None:
    """The reconstruction term alone spreads the means, the KL term alone brings every image to the prior."""
    _, dataset = published_pair
    told: list[str] = []
    alone, prior, both = train_scatters(dataset, epochs=60, announce=told.append)
    assert told == [alone.terms, prior.terms, both.terms] == ["distortion", "rate", "both"]
    assert alone.spread > both.spread > prior.spread
    assert prior.rate < 0.01 < both.rate < alone.rate
    assert prior.deviation == pytest.approx(1, abs=0.02)
    assert alone.draws.shape == (len(dataset.train), 2)
    assert alone.labels is None
    assert alone.separation is None
    assert alone.train_images == len(dataset.train)
    assert alone.test_images == len(dataset.test)


def test_large_images_are_reduced_for_the_scatters() -> None:
    """A side of 32 at most, none below 8, in the images' own proportions."""
    images = np.full((2, 128, 256, 3), 9, np.uint8)
    small = latent_scatter._small(images)
    assert small.shape == (2, 16, 32, 3)
    assert (small == 9).all()
    assert latent_scatter._small(np.zeros((1, 8, 256, 1), np.uint8)).shape == (1, 8, 32, 1)
    assert latent_scatter._small(images[:, :20, :31]).shape == (2, 20, 31, 3)


def test_separation_is_the_share_of_variance_between_classes() -> None:
    """1 where a class is a point, 0 where all classes have one centre, None where nothing varies."""
    labels = np.array([0, 0, 1, 1])
    assert separation(np.array([[0.0, 1], [0, 1], [2, 3], [2, 3]]), labels) == pytest.approx(1)
    assert separation(np.array([[-1.0, 0], [1, 0], [-1, 0], [1, 0]]), labels) == pytest.approx(0)
    assert separation(np.array([[0.0], [2], [2], [4]]), labels) == pytest.approx(0.5)
    assert separation(np.zeros((4, 2)), labels) is None


def report(label: str, objective: str, **figures: Any) -> Any:
    """Return the figures of a model that claims depend on."""
    values: dict[str, Any] = {"mse": 0.01, "sharp": 0.5, "frechet": 3.0, "active": 4, "elbos": [-3, -2, -1]}
    values |= figures
    has_posterior = objective != "ae"
    epochs = [{"elbo": elbo, "skipped_steps": 0} for elbo in values["elbos"]]
    return SimpleNamespace(
        label=label,
        objective=objective,
        quality=SimpleNamespace(
            mse=values["mse"],
            sharpness=values["sharp"],
            input_sharpness=1.0,
            sharpness_distance=abs(float(np.log(values["sharp"]))),
        ),
        posterior=SimpleNamespace(
            deviation=0.4 if has_posterior else None, rate=5.0 if has_posterior else None
        ),
        active_units=values["active"],
        latent_dim=32,
        frechet=SimpleNamespace(frechet_reconstructions=values["frechet"]),
        bundle=SimpleNamespace(loss_curves=lambda: epochs),
    )


def verdicts(*models: Any, scatters: tuple[LatentScatter, ...] = ()) -> list[str]:
    return [claim.verdict for claim in lecture_claims(models, scatters)]


def test_claims_are_judged_by_the_numbers() -> None:
    """The figures decide whether a claim holds, does not hold, or cannot be said."""
    unsaid = "cannot be said"
    vae = report("v", "vae")
    disl = report("d", "vae-disl", sharp=0.8, mse=0.02, frechet=2.0)
    gan = report("g", "vae-gan", sharp=0.4, mse=0.02, frechet=4.0)
    yes, no = "holds here", "does not hold here"
    assert verdicts(vae, disl, gan) == [yes, unsaid, yes, yes, yes, yes, no, yes, no]
    assert verdicts(report("a", "ae")) == [yes, *[unsaid] * 8]
    sharp = report("w", "vae", sharp=0.95, active=20, elbos=[-3, -1, -2])
    assert verdicts(sharp)[2:5] == [no, no, no]
    assert verdicts(vae, sharp)[2:5] == ["holds in 1 of 2 cases here"] * 3
    assert verdicts(report("c", "vae", active=0))[3] == no
    assert verdicts(report("s", "vae", elbos=[-1]))[4] == unsaid


def test_the_scatters_decide_over_the_two_terms() -> None:
    """The claim on the terms holds where the reconstruction term spreads and the KL term does not."""

    def scatter(terms: Any, spread: float, rate: float) -> LatentScatter:
        return LatentScatter(
            terms=terms,
            draws=np.zeros((1, 2), np.float32),
            labels=None,
            spread=spread,
            deviation=1.0,
            rate=rate,
            distortion=1.0,
            separation=None,
            train_images=1,
            test_images=1,
            image=ImageShape(height=8, width=8, channels=1),
        )

    both = scatter("both", 1.5, 3.0)
    good = (scatter("distortion", 8.0, 30.0), scatter("rate", 0.0, 0.0), both)
    bad = (scatter("distortion", 1.0, 30.0), scatter("rate", 2.0, 0.0), both)
    assert verdicts(scatters=good)[1] == "holds here"
    assert verdicts(scatters=bad)[1] == "does not hold here"


def test_a_claims_json_has_its_verdict() -> None:
    """Numbers and verdict stand together in the JSON file."""
    claim = Claim(text="t", criterion="c", cases=((True, "a"), (False, "b")), missing="m")
    assert claim.to_json_object()["verdict"] == "holds in 1 of 2 cases here"
    assert claim.to_json_object()["cases"] == [[True, "a"], [False, "b"]]


def test_three_digits_have_no_exponent_where_large() -> None:
    """Small numbers keep three digits, large ones all of them."""
    assert [three_digits(value) for value in (1234.5, 12.34, 0.012345)] == ["1,234", "12.3", "0.0123"]
    assert three_digits(14) == "14.0"


def test_files_are_compared_in_the_models_colours(published_pair: Pair, tmp_path: Path) -> None:
    """A grey model takes colour files, as the service would."""
    folder = tmp_path / "colour"
    folder.mkdir()
    for number in range(4):
        Image.new("RGB", (10, 12), (200, number, 0)).save(folder / f"{number}.png")
    published = find_versions([str(published_pair[0] / "blobs")])
    options = Options(models=(), dataset=str(folder), out=tmp_path / "report.html")
    dataset = load_data(options, published[0].manifest)
    check_image_shape(dataset, published[0].manifest.image, label=published[0].label)
    assert dataset.split.endswith("; all 4 pictures are in colour, read as grey")
