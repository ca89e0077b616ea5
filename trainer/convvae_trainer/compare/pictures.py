"""The pictures of a report, as PNG by file name."""

from typing import Any

from convvae_trainer.compare import charts
from convvae_trainer.compare.comparison import Comparison
from convvae_trainer.compare.image_row import ImageRow
from convvae_trainer.compare.image_sheet import sheet
from convvae_trainer.compare.latent_paths import INTERPOLATION, TRAVERSAL
from convvae_trainer.compare.latent_scatter import TERM_NAMES
from convvae_trainer.compare.system import System

__all__ = ["pictures"]

# The columns of the loss curves: titles, and the metrics with their names in the legend. The values of the
# validation images have the same names after `VALIDATION`.
CHARTS = (
    ("nats per image", {"distortion": "distortion", "loss": "-ELBO"}),
    ("rate, nats per image", {"rate": "rate"}),
    ("adversarial losses", {"adversarial": "decoder's loss", "discrimination": "discriminator's loss"}),
)
# The name of a class above an image is cut to this length.
CAPTION_CHARACTERS = 9


def pictures(comparison: Comparison) -> dict[str, bytes]:
    """Return the report's pictures as PNG, by file name."""
    made = {"reconstructions.png": _reconstructions(comparison)}
    if any(system.first.draws for system in comparison.systems):
        made["draws.png"] = _draws(comparison)
    if comparison.scatters:
        panels = [
            charts.ScatterPanel(title=TERM_NAMES[scatter.terms], points=scatter.draws, labels=scatter.labels)
            for scatter in comparison.shown_scatters
        ]
        made["scatter.png"] = charts.scatters(panels, class_names=comparison.class_names)
    steps = [f"{value:+g}" if value else "0" for value in TRAVERSAL]
    weights = ["input", "0", *[""] * (len(INTERPOLATION) - 2), "1", "input"]
    for number, system in enumerate(comparison.systems, start=1):
        made[f"traversal-{number}.png"] = sheet(system.first.traversals, captions=steps)
        if system.first.interpolations:
            made[f"interpolation-{number}.png"] = sheet(system.first.interpolations, captions=weights)
    curves = [curve for system in comparison.systems if (curve := loss_curve(system)) is not None]
    if curves:
        made["curves.png"] = charts.curves(curves, charts=CHARTS)
    return made


def _reconstructions(comparison: Comparison) -> bytes:
    sample = comparison.sample
    rows = [
        ImageRow(label=system.name, note=system.note, images=system.first.reconstructions)
        for system in comparison.systems
    ]
    inputs = ImageRow(label="input", images=sample.images[sample.shown])
    return sheet([inputs, *rows], captions=_class_captions(comparison))


def _class_captions(comparison: Comparison) -> list[str]:
    """Return the class of each image that is shown; empty without labels."""
    sample, names = comparison.sample, comparison.class_names
    if sample.labels is None:
        return []
    return [
        charts.class_name(int(label), names, characters=CAPTION_CHARACTERS)
        for label in sample.labels[sample.shown]
    ]


def _draws(comparison: Comparison) -> bytes:
    sample = comparison.sample
    rows = [ImageRow(label="data", note="test images", images=sample.images[sample.shown])]
    for system in comparison.systems:
        if (draws := system.first.draws) is not None:
            rows.append(ImageRow(label=system.name, note=system.note, images=draws.images))
            rows.append(ImageRow(label="", note="nearest training images", images=draws.nearest))
    return sheet(rows)


def loss_curve(system: System) -> charts.LossCurve | None:
    """Return the loss curve of a system's first model; None if its bundle holds no metrics."""
    epochs = system.first.bundle.loss_curves()
    if not epochs:
        return None
    values: dict[str, list[float | None]] = {}
    for prefix in ("", charts.VALIDATION):
        for name in ("distortion", "rate", "adversarial", "discrimination"):
            values[prefix + name] = [_number(epoch.get(prefix + name)) for epoch in epochs]
        elbos = [_number(epoch.get(f"{prefix}elbo")) for epoch in epochs]
        values[f"{prefix}loss"] = [None if elbo is None else -elbo for elbo in elbos]
    return charts.LossCurve(label=system.name, epochs=[epoch["epoch"] for epoch in epochs], values=values)


def _number(value: Any) -> float | None:
    """Return a number as a float, and None for anything else: the metrics may be damaged."""
    return float(value) if type(value) in (int, float) else None
