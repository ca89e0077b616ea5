"""The report: one file that needs nothing else, its text escaped, with pictures and numbers beside it."""

import base64
import dataclasses
import json
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convvae_service.bundle import LikelihoodSpec
from convvae_trainer.commands.compare import CompareOptions, run_compare
from convvae_trainer.compare.comparison import Comparison
from convvae_trainer.compare.figures import FIGURES
from convvae_trainer.compare.html import render, write
from convvae_trainer.compare.model_report import ModelReport
from convvae_trainer.compare.pictures import pictures
from convvae_trainer.compare.settings_table import settings_table
from convvae_trainer.compare.system import System, make_systems
from convvae_trainer.compare.table import table
from convvae_trainer.data.dataset import Dataset
from convvae_trainer.errors import BadConfig
from convvae_trainer.runs.checkpoint import replace_file
from support.commands import run_train

VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """Collects tags, attributes and text, and checks that what is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += data

    def attributes(self, name: str) -> list[str]:
        return [str(attrs[name]) for _, attrs in self.tags if name in attrs]


@pytest.fixture(scope="module")
def made(
    published_pair: tuple[Path, Dataset], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Comparison, Path]:
    """A report on a vae and an autoencoder, with a scatter of one epoch; to be read only."""
    root, dataset = published_pair
    out = tmp_path_factory.mktemp("report") / "some" / "report.html"
    options = CompareOptions(
        models=[str(root / "blobs"), str(root / "blobs-ae")],
        dataset=dataset.name,
        out=out,
        columns=4,
        scatter_epochs=1,
    )
    return run_compare(options, command="convvae-train compare <these>"), out


def test_the_report_needs_no_other_file_and_no_script(made: tuple[Comparison, Path]) -> None:
    """All sources are data, all links lead to the page's own sections, every tag is closed."""
    page = Page(made[1].read_text(encoding="utf-8"))
    assert page.open == []
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.tags}
    assert all(source.startswith("data:image/png;base64,") for source in page.attributes("src"))
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    links, targets = page.attributes("href"), page.attributes("id")
    assert len(links) == 9
    assert {link.removeprefix("#") for link in links} == set(targets)
    assert "url(" not in made[1].read_text(encoding="utf-8")
    assert all(page.attributes("alt"))


def test_the_pictures_lie_beside_the_report(made: tuple[Comparison, Path]) -> None:
    """The page and the folder hold the same pictures: reconstructions, scatter, sheets, curves."""
    page = Page(made[1].read_text(encoding="utf-8"))
    embedded = {base64.b64decode(source.partition(",")[2]) for source in page.attributes("src")}
    files = {path.name: path.read_bytes() for path in (made[1].parent / "report_files").iterdir()}
    sheets = {f"{kind}-{number}.png" for kind in ("traversal", "interpolation") for number in (1, 2)}
    assert set(files) == {"reconstructions.png", "draws.png", "scatter.png", "curves.png", *sheets}
    assert set(files.values()) == embedded


def test_the_numbers_are_beside_the_report(made: tuple[Comparison, Path]) -> None:
    """The JSON holds what the comparison found; None is null, and no number is NaN."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    comparison, out = made
    text = out.with_suffix(".json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text, parse_constant=refuse)
    vae, ae = found["models"]
    assert [vae["label"], ae["label"]] == ["blobs", "blobs-ae"]
    assert vae["elbo"] == comparison.models[0].posterior.elbo == -(vae["distortion"] + vae["rate"])
    assert ae["elbo"] is None
    assert vae["mse"] == comparison.models[0].quality.mse
    assert [scatter["terms"] for scatter in found["scatter"]] == ["distortion", "rate", "both"]
    assert found["scatter_epochs"] == 1
    assert found["shown"] == sorted(np.random.default_rng(0).permutation(10)[:4].tolist())
    assert (found["images"], found["scatter"][0]["train_images"], found["scatter"][0]["test_images"]) == (
        10,
        70,
        10,
    )
    assert [system["name"] for system in found["systems"]] == ["VAE", "AE"]
    assert found["systems"][0]["figures"]["mse"] == {"mean": vae["mse"], "deviation": None, "seeds": 1}
    assert found["systems"][0]["settings"]["latent_dim"] == 4
    assert ae["prior_draws"] is None
    assert 0 < vae["prior_draws"]["distance"] < 1
    assert "no labels" in found["classifier"]["missing"]
    assert len(found["claims"]) == len(comparison.claims) == 9


def test_what_the_report_says(made: tuple[Comparison, Path]) -> None:
    """Names, split, verdicts, the missing labels and the command stand in it."""
    comparison, out = made
    page = Page(out.read_text(encoding="utf-8"))
    for words in (
        "2 models on blobs.npy",
        comparison.split,
        "blobs-ae",
        "Fréchet distances were not measured: the data have no labels",
        "convvae-train compare <these>",
        "in one colour, since there are no labels",
        "a bernoulli likelihood",
        "The lecture is",
        "One seed has no spread",
        "nearest to it in pixels",
        "AE has no prior, and so no draws",
        *(claim.verdict for claim in comparison.claims),
        *(claim.text for claim in comparison.claims),
    ):
        assert words in page.text, words
    spread = f"{comparison.scatters[0].spread:.3g}"
    assert f"Reconstruction term alone: the posterior means spread by {spread}" in page.text
    alone = comparison.scatters[0]
    figures = f"the rate is {alone.rate:.3g} nats, and the distortion is {alone.distortion:.1f} nats"
    assert f"On test images {figures}" in page.text
    assert "on 70 training images of 12x10x1" in page.text
    assert "Rate and distortion are of 10 test images" in page.text


def test_text_from_outside_is_escaped(made: tuple[Comparison, Path]) -> None:
    """Names of data, labels and commands are shown as text, also if they hold HTML."""
    evil = '<script>alert("1")</script>&amp;'
    first = made[0].models[0]
    bundle = dataclasses.replace(
        first.bundle, published=dataclasses.replace(first.published, label=evil + " $x^")
    )
    comparison = dataclasses.replace(
        made[0],
        dataset=evil.replace("/", ""),
        split=evil,
        command=evil,
        no_classifier=evil,
        libraries={evil: evil},
        systems=[System(name=evil, members=(dataclasses.replace(first, bundle=bundle),))],
    )
    page = Page(render(comparison, pictures(comparison), stem=evil))
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.open == []
    assert page.text.count(evil) >= 6
    assert any(evil in alt for alt in page.attributes("alt"))


def seeds_of(model: ModelReport, mses: list[float], **training: Any) -> list[ModelReport]:
    """Return the model once for each error, as if trained with one seed after the other."""
    made = []
    for seed, mse in enumerate(mses):
        manifest = model.published.manifest
        graphs = tuple(
            dataclasses.replace(graph, sha256=sha256(f"{seed}{graph.role}{training}".encode()).hexdigest())
            for graph in manifest.graphs
        )
        metrics = {**manifest.training.metrics, **training}
        changed = dataclasses.replace(manifest.training, seed=seed, metrics=metrics)
        changed_manifest = dataclasses.replace(manifest, graphs=graphs, training=changed)
        published = dataclasses.replace(model.published, manifest=changed_manifest, label=f"m{seed}")
        bundle = dataclasses.replace(model.bundle, published=published)
        quality = dataclasses.replace(model.quality, mse=mse)
        made.append(dataclasses.replace(model, bundle=bundle, quality=quality))
    return made


def table_of(comparison: Comparison, *models: ModelReport) -> str:
    return table(dataclasses.replace(comparison, systems=make_systems(models)))


def test_a_figure_is_bold_where_it_is_best_beyond_the_spread_of_seeds(made: tuple[Comparison, Path]) -> None:
    """Means with deviations; a difference within the spread, and one of single seeds, mark nothing."""
    vae = made[0].models[0]
    far = seeds_of(vae, [0.0300, 0.0302, 0.0304], training_steps=9)
    near = seeds_of(vae, [0.0176, 0.0178, 0.0180])
    same = seeds_of(vae, [0.0175, 0.0178, 0.0184], training_steps=9)
    cell = "0.01780 <small>± 0.00020</small></td>"
    assert f"<td class=best>{cell}" in table_of(made[0], *near, *far)
    assert "0.03020 <small>± 0.00020</small>" in table_of(made[0], *near, *far)
    assert f"<td>{cell}" in table_of(made[0], *near, *same)
    single = table_of(made[0], near[0], far[0])
    assert "class=best" not in single
    assert "One seed has no spread" in single
    assert "<td>0.01760</td><td>0.03000</td>" in single
    mixed = table_of(made[0], *near, far[0])
    assert f"<td>{cell}" in mixed
    assert "One seed has no spread: VAE" in mixed


def test_bounds_of_different_likelihoods_are_not_compared(made: tuple[Comparison, Path]) -> None:
    """None is bold, however far they are apart and however many seeds there are."""

    def with_elbo(model: ModelReport, elbo: float, likelihood: str) -> ModelReport:
        manifest = model.published.manifest
        bernoulli = manifest.likelihood
        spec = bernoulli if likelihood == "bernoulli" else LikelihoodSpec(name=likelihood, sigma=0.1)
        settings = {**manifest.training.metrics["training_settings"], "likelihood": likelihood}
        metrics = {**manifest.training.metrics, "training_settings": settings}
        training = dataclasses.replace(manifest.training, metrics=metrics)
        changed = dataclasses.replace(manifest, likelihood=spec, training=training)
        published = dataclasses.replace(model.published, manifest=changed)
        return dataclasses.replace(
            model,
            bundle=dataclasses.replace(model.bundle, published=published),
            posterior=dataclasses.replace(model.posterior, elbo=elbo),
        )

    models = seeds_of(made[0].models[0], [0.01, 0.011])
    others = seeds_of(made[0].models[0], [0.02, 0.021], training_steps=9)
    for likelihood, is_bold in (("bernoulli", True), ("gaussian", False)):
        text = table_of(
            made[0],
            *(with_elbo(model, -5.0 + 0.1 * row, "bernoulli") for row, model in enumerate(models)),
            *(with_elbo(model, -9.0 + 0.1 * row, likelihood) for row, model in enumerate(others)),
        )
        assert ("<td class=best>-4.95" in text) is is_bold
        assert ("cannot be compared between likelihoods" in text) is not is_bold
        assert "<td class=best>0.01050" in text


def test_systems_of_several_seeds_have_one_picture_each(made: tuple[Comparison, Path]) -> None:
    """Twelve models of two systems are two rows and two sheets, and the page says so."""
    models = [
        *seeds_of(made[0].models[0], [0.01 + 0.001 * seed for seed in range(6)]),
        *seeds_of(made[0].models[1], [0.02 + 0.001 * seed for seed in range(6)]),
    ]
    comparison = dataclasses.replace(made[0], systems=make_systems(models))
    drawn = pictures(comparison)
    assert "traversal-2.png" in drawn
    assert "traversal-3.png" not in drawn
    text = Page(render(comparison, drawn, stem="r")).text
    assert "12 models of 2 systems on" in text
    assert "the first one is shown" in text
    assert "m0, first of 6 seeds" in text
    assert len(comparison.to_json_object()["models"]) == 12


def test_settings_that_differ_stand_beside_the_figures(made: tuple[Comparison, Path]) -> None:
    """Systems that have a setting differ in it; one that has no such setting has a dash."""
    vae, autoencoder = made[0].models
    settings = vae.published.manifest.training.metrics["training_settings"]
    (other,) = seeds_of(vae, [0.01], training_settings={**settings, "beta": 4.0, "width": 8})
    found = settings_table(make_systems([vae, other, autoencoder]))
    assert "<th scope=row>beta</th><td>1</td><td>4</td><td>&ndash;</td>" in found
    assert "<th scope=row>width</th><td>4</td><td>8</td><td>4</td>" in found
    assert "latent_dim" not in found
    assert settings_table(make_systems([vae, autoencoder])) == ""
    old = seeds_of(vae, [0.01], training_settings=None)
    assert "Settings are not recorded by" in settings_table(make_systems([vae, *old]))


def test_the_best_epoch_is_said_where_early_stopping_took_it(made: tuple[Comparison, Path]) -> None:
    """The table's head has the epochs that were trained, and those after which the weights were kept."""
    vae = made[0].models[0]
    assert "the weights are those after epoch" not in table_of(made[0], vae)
    (stopped,) = seeds_of(vae, [0.01], training_best_epoch=3)
    assert "4 epochs of blobs.npy, the weights are those after epoch 3" in table_of(made[0], stopped)


def test_figures_that_no_model_has_are_left_out(made: tuple[Comparison, Path]) -> None:
    """An autoencoder alone has no line of an ELBO; every figure has a name of its own."""
    text = table_of(made[0], made[0].models[1])
    assert "ELBO<small>" not in text
    assert "MSE" in text
    assert len({figure.name for figure in FIGURES}) == len(FIGURES)


@pytest.mark.slow
def test_a_report_can_be_made_anew_but_not_in_place_of_a_folder(
    made: tuple[Comparison, Path], tmp_path: Path
) -> None:
    """Existing files of a report are replaced; a file in the way of a folder is named."""
    out = tmp_path / "r.html"
    drawn = pictures(made[0])
    for numbers in ("1", "2"):
        write(made[0], drawn, numbers, out)
    assert (tmp_path / "r.json").read_text() == "2\n"
    (tmp_path / "s_files").write_text("a file")
    with pytest.raises(BadConfig, match=r"s\.html cannot be written"):
        write(made[0], drawn, "1", tmp_path / "s.html")


def test_a_report_that_fails_leaves_nothing(
    made: tuple[Comparison, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full after some files takes back what was not there before, and nothing else."""
    (tmp_path / "r_files").mkdir()
    (tmp_path / "r_files" / "mine").touch()

    def full(path: Path, data: bytes) -> None:
        if path.suffix == ".html":
            raise OSError(28, "No space left on device")
        replace_file(path, data)

    monkeypatch.setattr("convvae_trainer.compare.html.replace_file", full)
    drawn = pictures(made[0])
    for out in (tmp_path / "r.html", tmp_path / "deep" / "r.html"):
        with pytest.raises(BadConfig, match=r"r\.html cannot be written: No space left on device"):
            write(made[0], drawn, "1", out)
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")} == {
        "r_files",
        "r_files/mine",
    }


def test_the_command_prints_verdicts_and_refuses_in_one_line(
    published_pair: tuple[Path, Dataset],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`compare` writes the report where it is told; what is wrong is one line and exit code 2."""
    root, dataset = published_pair
    report = tmp_path / "r.html"
    arguments = ["compare", str(root / "blobs"), "--dataset", dataset.name, "--no-scatter"]
    more = ["--seed", "3", "--images", "5", "--out", str(report)]
    assert run_train(monkeypatch, *arguments, *more) == 0
    shown = capsys.readouterr().out
    assert "measuring blobs" in shown
    assert "cannot be said" in shown
    assert str(report) in shown
    numbers = json.loads(report.with_suffix(".json").read_text())
    assert (numbers["images"], numbers["seed"], numbers["scatter"]) == (5, 3, [])
    assert numbers["shown"] == sorted(np.random.default_rng(3).permutation(10)[:5].tolist())
    page = Page(report.read_text())
    assert "Test images drawn by seed 3" in page.text
    assert "The scatter was left out" in page.text
    assert run_train(monkeypatch, "compare", "nowhere", "--dataset", "digits", "--out", "r.html") == 2
    refused = capsys.readouterr().err
    assert refused.startswith("error: no model is published at 'nowhere': ")
    assert refused.count("\n") == 1
