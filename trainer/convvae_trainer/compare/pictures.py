"""The pictures of a report, as PNG by file name."""

from typing import Any

from convvae_trainer.compare import charts
from convvae_trainer.compare.comparison import Comparison
from convvae_trainer.compare.image_row import ImageRow
from convvae_trainer.compare.image_sheet import sheet
from convvae_trainer.compare.latent_paths import INTERPOLATION, TRAVERSAL
from convvae_trainer.compare.latent_scatter import TERM_NAMES
from convvae_trainer.compare.model_report import ModelReport

__all__ = ["pictures"]

# The columns of the loss curves: titles, and the metrics with their names in the legend.
CHARTS = (
    ("nats per image", {"distortion": "distortion", "loss": "-ELBO"}),
    ("rate, nats per image", {"rate": "rate"}),
    ("adversarial losses", {"adversarial": "decoder's loss", "discrimination": "discriminator's loss"}),
)


def pictures(comparison: Comparison) -> dict[str, bytes]:
    """Return the report's pictures as PNG, by file name."""
    made = {"reconstructions.png": _reconstructions(comparison)}
    if comparison.scatters:
        panels = [
            charts.ScatterPanel(title=TERM_NAMES[scatter.terms], points=scatter.draws, labels=scatter.labels)
            for scatter in comparison.scatters
        ]
        made["scatter.png"] = charts.scatters(panels)
    steps = [f"{value:+g}" if value else "0" for value in TRAVERSAL]
    weights = ["input", "0", *[""] * (len(INTERPOLATION) - 2), "1", "input"]
    for number, model in enumerate(comparison.models, start=1):
        made[f"traversal-{number}.png"] = sheet(model.traversals, captions=steps)
        if model.interpolations:
            made[f"interpolation-{number}.png"] = sheet(model.interpolations, captions=weights)
    curves = [curve for model in comparison.models if (curve := loss_curve(model)) is not None]
    if curves:
        made["curves.png"] = charts.curves(curves, charts=CHARTS)
    return made


def _reconstructions(comparison: Comparison) -> bytes:
    sample = comparison.sample
    inputs = ImageRow(label="input", images=sample.images[sample.shown])
    return sheet(
        [
            inputs,
            *(
                ImageRow(label=model.label, note=model.objective, images=model.reconstructions)
                for model in comparison.models
            ),
        ]
    )


def loss_curve(model: ModelReport) -> charts.LossCurve | None:
    """Return the model's loss curve; None if its bundle holds no metrics."""
    epochs = model.bundle.loss_curves()
    if not epochs:
        return None
    values: dict[str, list[float | None]] = {
        name: [_number(epoch.get(name)) for epoch in epochs]
        for name in ("distortion", "rate", "adversarial", "discrimination")
    }
    elbos = [_number(epoch.get("elbo")) for epoch in epochs]
    values["loss"] = [None if elbo is None else -elbo for elbo in elbos]
    return charts.LossCurve(label=model.label, epochs=[epoch["epoch"] for epoch in epochs], values=values)


def _number(value: Any) -> float | None:
    """Return a number as a float, and None for anything else: the metrics may be damaged."""
    return float(value) if type(value) in (int, float) else None
