"""The command `compare`: checks first, then figures, pictures, and the report with its files."""

import datetime
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convvae_trainer.compare import drawing
from convvae_trainer.compare.bundle_model import Published, find, open_model
from convvae_trainer.compare.claims import judge_claims
from convvae_trainer.compare.comparison import TERMS, Comparison
from convvae_trainer.compare.html import write
from convvae_trainer.compare.latent_scatter import default_epochs, train_planes
from convvae_trainer.compare.measure import (
    INTERPOLATION,
    TRAVERSAL,
    FeatureClassifier,
    ModelReport,
    check_dataset,
    check_models,
    choose,
    measure,
    train_judge,
)
from convvae_trainer.compute.device import enough_memory
from convvae_trainer.data.dataset import Dataset, load_dataset
from convvae_trainer.errors import BadConfig
from convvae_trainer.runs.folder import can_be_written
from convvae_trainer.runs.provenance import library_versions
from convvae_trainer.settings.config import config_from
from convvae_trainer.settings.layers import FLAGS, Layer

__all__ = ["Options", "Say", "pictures", "run_compare"]

Say = Callable[[str], object]
CHARTS = (
    ("nats per image", {"distortion": "distortion", "loss": "-ELBO"}),
    ("rate, nats per image", {"rate": "rate"}),
    (
        "two players",
        {"adversarial": "decoder's loss", "discrimination": "discriminator's loss"},
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What is compared how; see `convvae-train compare --help`."""

    models: Sequence[str]
    dataset: str
    out: Path
    data_root: str | None = None
    download: bool = False
    image_size: tuple[int, int] | None = None
    images: int = 10_000
    columns: int = 8
    seed: int = 0
    scatter: bool = True
    scatter_epochs: int | None = None
    frechet: bool = True


def run_compare(options: Options, *, command: str = "", say: Say = str) -> Comparison:
    """Compare models, write the report, its pictures and numbers; what can be refused is refused first.

    Args:
        options: What is compared.
        command: What was typed, for the record.
        say: Is told what is done next.

    Raises:
        BadConfig: A model does not exist, or the report cannot be written.
        BundleError: A model is damaged, or is of images of another shape than the first one.
        BadData: The data cannot be read, or are of another shape than the models' images.
    """
    _check_out(options.out)
    published = find(options.models)
    check_models(published)
    dataset = _load(options, published)
    check_dataset(dataset, published)
    opened = [open_model(one) for one in published]
    chosen = choose(dataset, limit=options.images, columns=options.columns, seed=options.seed)
    seed = options.seed
    with enough_memory():
        judge: FeatureClassifier | str = "left out by --no-frechet"
        if options.frechet:
            if dataset.train_labels is not None:
                say("training a classifier for Fréchet distances")
            judge = train_judge(dataset, chosen)
        systems = []
        for model in opened:
            say(f"measuring {model.published.label}")
            found = None if isinstance(judge, str) else judge
            systems.append(measure(model, chosen, judge=found, seed=seed))
        planes = []
        if options.scatter:
            planes = train_planes(
                dataset,
                epochs=options.scatter_epochs,
                seed=seed,
                announce=lambda kind: say(f"training a 2-D model for the scatter: {TERMS[kind]}"),
            )
    comparison = Comparison(
        dataset=dataset.name,
        split=dataset.split,
        image=dataset.image,
        chosen=chosen,
        seed=options.seed,
        judge=None if isinstance(judge, str) else judge,
        unjudged=judge if isinstance(judge, str) else "",
        systems=systems,
        planes=planes,
        plane_epochs=options.scatter_epochs or default_epochs(len(dataset.train)),
        claims=judge_claims(systems, planes),
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        command=command,
        libraries=library_versions(),
    )
    write(comparison, pictures(comparison), json.dumps(comparison.to_json_object(), indent=2), options.out)
    return comparison


def _check_out(out: Path) -> None:
    if out.suffix.lower() not in (".html", ".htm"):
        raise BadConfig(f"--out is {out}: give a name that ends in .html")
    if out.is_dir() or not can_be_written(out.parent) or (out.exists() and not os.access(out, os.W_OK)):
        raise BadConfig(f"--out: {out} cannot be written")


def _load(options: Options, published: Sequence[Published]) -> Dataset:
    resize = published[0].manifest.resize
    flags = {
        "dataset": options.dataset,
        "data_root": options.data_root,
        "image_size": options.image_size,
    }
    resizing = {"resize_mode": resize.mode, "resize_filter": resize.filter}
    config = config_from(resizing, Layer(flags, FLAGS))
    return load_dataset(config, download=options.download, channels=published[0].manifest.image.channels)


def pictures(comparison: Comparison) -> dict[str, bytes]:
    """Return the report's pictures as PNG, by file name."""
    chosen, systems = comparison.chosen, comparison.systems
    rows = [drawing.Row(label="input", images=chosen.images[chosen.shown])]
    rows += [
        drawing.Row(label=system.label, note=system.objective, images=system.reconstructions)
        for system in systems
    ]
    drawn = {"reconstructions.png": drawing.sheet(rows)}
    if comparison.planes:
        panels = [
            drawing.Scatter(title=TERMS[plane.terms], points=plane.draws, labels=plane.labels)
            for plane in comparison.planes
        ]
        drawn["scatter.png"] = drawing.scatters(panels)
    for number, system in enumerate(systems, start=1):
        steps = [f"{value:+g}" if value else "0" for value in TRAVERSAL]
        drawn[f"traversal-{number}.png"] = drawing.sheet(_rows(system.traversal), captions=steps)
        if system.interpolation:
            between = ["input", "0", *[""] * (len(INTERPOLATION) - 2), "1", "input"]
            drawn[f"interpolation-{number}.png"] = drawing.sheet(
                _rows(system.interpolation), captions=between
            )
    if lines := [curve for system in systems if (curve := _curve(system)) is not None]:
        drawn["curves.png"] = drawing.curves(lines, columns=CHARTS)
    return drawn


def _rows(strips: Sequence[Any]) -> list[drawing.Row]:
    return [drawing.Row(label=strip.label, note=strip.note, images=strip.images) for strip in strips]


def _curve(system: ModelReport) -> drawing.Curve | None:
    lines = system.model.curves()
    if not lines:
        return None
    values: dict[str, list[float | None]] = {
        name: [_number(line.get(name)) for line in lines]
        for name in ("distortion", "rate", "adversarial", "discrimination")
    }
    elbos = [_number(line.get("elbo")) for line in lines]
    values["loss"] = [None if elbo is None else -elbo for elbo in elbos]
    return drawing.Curve(label=system.label, epochs=[line["epoch"] for line in lines], values=values)


def _number(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) else None
