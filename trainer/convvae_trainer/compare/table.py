"""The report's table: the figures of all models, what each means, and the best of each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from convvae_trainer.compare.claims import three_digits
from convvae_trainer.compare.comparison import Comparison
from convvae_trainer.compare.model_report import ModelReport
from convvae_trainer.export.model_card import BEST_EPOCH

__all__ = ["FIGURES", "table"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A line of the table. `value` returns a model's number, or None if it has none.

    `form` is the number's format; "" gives three digits. `best` picks the best number. A figure that depends
    on the likelihood is not compared between different likelihoods.
    """

    name: str
    meaning: str
    value: Callable[[ModelReport], float | None]
    form: str = ".2f"
    best: Callable[[Sequence[float]], float] | None = None
    depends_on_likelihood: bool = False


FIGURES = (
    Figure(
        name="MSE",
        meaning="squared error of a pixel in 0..1",
        value=lambda model: model.quality.mse,
        form=".5f",
        best=min,
    ),
    Figure(name="PSNR", meaning="dB", value=lambda model: model.quality.psnr_db, best=max),
    Figure(
        name="SSIM",
        meaning="structural similarity, 1 is equal",
        value=lambda model: model.quality.ssim,
        form=".4f",
        best=max,
    ),
    Figure(
        name="Sharpness",
        meaning="variance of the Laplacian",
        value=lambda model: model.quality.sharpness,
        form=".4f",
    ),
    Figure(
        name="Sharpness distance",
        meaning="|ln(ratio to the inputs' sharpness)|",
        value=lambda model: model.quality.sharpness_distance,
        form=".3f",
        best=min,
    ),
    Figure(
        name="Fréchet, reconstructions",
        meaning="from the test images",
        value=lambda model: model.frechet.frechet_reconstructions,
        form="",
        best=min,
    ),
    Figure(
        name="Fréchet, prior samples",
        meaning="from the test images",
        value=lambda model: model.frechet.frechet_samples,
        form="",
        best=min,
    ),
    Figure(
        name="Classified correctly",
        meaning="reconstructions assigned to their image's class",
        value=lambda model: model.frechet.accuracy,
        form=".1%",
        best=max,
    ),
    Figure(
        name="Distortion",
        meaning="-log p(x|z), nats per image",
        value=lambda model: model.distortion,
        best=min,
        depends_on_likelihood=True,
    ),
    Figure(
        name="Rate",
        meaning="KL divergence from the prior, nats per image",
        value=lambda model: model.posterior.rate,
    ),
    Figure(
        name="ELBO",
        meaning="nats per image",
        value=lambda model: model.posterior.elbo,
        best=max,
        depends_on_likelihood=True,
    ),
    Figure(
        name="Bits per dim",
        meaning="of the ELBO",
        value=lambda model: model.posterior.bits_per_dim,
        form=".4f",
        best=min,
        depends_on_likelihood=True,
    ),
    Figure(
        name="Active units",
        meaning="latent dimensions whose mean varies",
        value=lambda model: model.active_units,
        form="d",
    ),
    Figure(name="Latents", meaning="dimensions of z", value=lambda model: model.latent_dim, form="d"),
    Figure(
        name="Posterior deviation",
        meaning="mean over images and latents",
        value=lambda model: model.posterior.deviation,
        form=".3f",
    ),
)


def table(comparison: Comparison) -> str:
    """Return the table as HTML: a line for each figure, a column for each model, and notes."""
    models = comparison.models
    likelihoods = {model.published.manifest.likelihood.name for model in models}
    heads = "".join(
        f"<th scope=col>{escape(model.label)}<small>{escape(_about(model))}</small></th>" for model in models
    )
    lines = [line for figure in FIGURES if (line := _line(figure, models, likelihoods))]
    return (
        f'<div class="wide"><table>\n<thead><tr><th></th>{heads}</tr></thead>\n<tbody>\n'
        + "\n".join(lines)
        + f"\n</tbody></table></div>\n<p class=note>{_notes(comparison, likelihoods)}</p>"
    )


def _line(figure: Figure, models: Sequence[ModelReport], likelihoods: set[str]) -> str:
    """Return the figure's line; "" if no model has the figure."""
    values = [figure.value(model) for model in models]
    known = [value for value in values if value is not None]
    if not known:
        return ""
    is_comparable = len(known) > 1 and not (figure.depends_on_likelihood and len(likelihoods) > 1)
    best = figure.best(known) if figure.best and is_comparable and len(set(known)) > 1 else None
    cells = "".join(
        _cell(value, figure.form, is_best=value is not None and value == best) for value in values
    )
    arrow = " ↓" if figure.best is min else " ↑" if figure.best is max else ""
    head = f"{escape(figure.name)}{arrow}<small>{escape(figure.meaning)}</small>"
    return f"<tr><th scope=row>{head}</th>{cells}</tr>"


def _about(model: ModelReport) -> str:
    """Return the line below a model's name."""
    published, manifest = model.published, model.published.manifest
    best = manifest.training.metrics.get(BEST_EPOCH)
    return (
        f"{manifest.objective}, {manifest.likelihood.name}; version {published.version},"
        f" {published.precision}; {manifest.training.epochs:g} epochs of {manifest.training.dataset}"
        + ("" if best is None else f", the weights are those after epoch {best}")
    )


def _cell(value: float | None, form: str, *, is_best: bool) -> str:
    if value is None:
        return "<td class=none>&ndash;</td>"
    text = format(value, form) if form else three_digits(value)
    return f"<td{' class=best' if is_best else ''}>{escape(text)}</td>"


def _notes(comparison: Comparison, likelihoods: set[str]) -> str:
    sharpness = comparison.models[0].quality.input_sharpness
    notes = [
        "↓ less is better, ↑ more is better; the best number is bold.",
        (
            "MSE, PSNR, SSIM and sharpness are of reconstructions from the posterior mean; distortion and"
            " ELBO take one posterior draw for each image."
        ),
        (
            f"The inputs' sharpness is {sharpness:.4f}. Noise is sharp too: a small distance from it is"
            " better than a high sharpness."
        ),
    ]
    if len(likelihoods) > 1:
        notes.append(
            "Distortion, ELBO and bits per dim cannot be compared between likelihoods"
            f" ({', '.join(sorted(likelihoods))}): none is marked as best."
        )
    notes.append(_classifier_note(comparison))
    return escape(" ".join(notes))


def _classifier_note(comparison: Comparison) -> str:
    classifier = comparison.classifier
    if classifier is None:
        return f"Fréchet distances were not measured: {comparison.no_classifier}."
    return (
        "Fréchet distances are measured in the features of a small classifier that was trained on the"
        f" training images; its accuracy on the test images is {classifier.accuracy:.1%}. They cannot be"
        " compared with distances on other data, or with those of Inception. The distance of"
        f" {classifier.reference_images} training images from the test images is"
        f" {three_digits(classifier.reference)}."
    )
