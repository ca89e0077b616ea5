"""The report's table of figures: which there are, what they mean, and which of them is the best."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from convvae_trainer.compare.claims import three_digits
from convvae_trainer.compare.comparison import Comparison
from convvae_trainer.compare.measure import ModelReport
from convvae_trainer.export.model_card import BEST_EPOCH

__all__ = ["FIGURES", "table"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A line of the table: of each system a number, or None where there is none."""

    name: str
    meaning: str
    value: Callable[[ModelReport], float | None]
    form: str = ".2f"
    """Of the number; empty: three digits, and no more behind the point than that."""
    best: Callable[[Sequence[float]], float] | None = None
    is_of_likelihood: bool = False


FIGURES = (
    Figure(
        name="MSE",
        meaning="squared error of a pixel in 0..1",
        value=lambda s: s.quality.mse,
        form=".5f",
        best=min,
    ),
    Figure(name="PSNR", meaning="dB", value=lambda s: s.quality.psnr_db, best=max),
    Figure(
        name="SSIM",
        meaning="structural similarity, 1 is equal",
        value=lambda s: s.quality.ssim,
        form=".4f",
        best=max,
    ),
    Figure(
        name="Sharpness", meaning="variance of the Laplacian", value=lambda s: s.quality.sharpness, form=".4f"
    ),
    Figure(
        name="Sharpness distance",
        meaning="|ln| of its ratio to the inputs'",
        value=lambda s: s.quality.sharpness_distance,
        form=".3f",
        best=min,
    ),
    Figure(
        name="Fréchet, reconstructions",
        meaning="from the test images",
        value=lambda s: s.frechet_reconstructions,
        form="",
        best=min,
    ),
    Figure(
        name="Fréchet, prior samples",
        meaning="from the test images",
        value=lambda s: s.frechet_samples,
        form="",
        best=min,
    ),
    Figure(
        name="Classified rightly",
        meaning="reconstructions taken for their image's class",
        value=lambda s: s.accuracy,
        form=".1%",
        best=max,
    ),
    Figure(
        name="Distortion",
        meaning="-log p(x|z), nats per image",
        value=lambda s: s.distortion,
        best=min,
        is_of_likelihood=True,
    ),
    Figure(name="Rate", meaning="divergence from the prior, nats per image", value=lambda s: s.rate),
    Figure(name="ELBO", meaning="nats per image", value=lambda s: s.elbo, best=max, is_of_likelihood=True),
    Figure(
        name="Bits per dim",
        meaning="of the ELBO",
        value=lambda s: s.bits_per_dim,
        form=".4f",
        best=min,
        is_of_likelihood=True,
    ),
    Figure(
        name="Active units", meaning="latents whose mean varies", value=lambda s: s.active_units, form="d"
    ),
    Figure(name="Latents", meaning="dimensions of z", value=lambda s: s.latent_dim, form="d"),
    Figure(
        name="Posterior deviation",
        meaning="mean over images and latents",
        value=lambda s: s.deviation,
        form=".3f",
    ),
)


def table(comparison: Comparison) -> str:
    """Return the table as HTML: a line for each figure, a column for each model, and notes."""
    systems = comparison.systems
    likelihoods = {system.published.manifest.likelihood.name for system in systems}
    heads = "".join(
        f"<th scope=col>{escape(system.label)}<small>{escape(_about(system))}</small></th>"
        for system in systems
    )
    lines = []
    for figure in FIGURES:
        values = [figure.value(system) for system in systems]
        known = [value for value in values if value is not None]
        if not known:
            continue
        is_fair = len(known) > 1 and not (figure.is_of_likelihood and len(likelihoods) > 1)
        best = figure.best(known) if figure.best and is_fair and len(set(known)) > 1 else None
        cells = "".join(
            _cell(value, figure.form, is_best=value is not None and value == best) for value in values
        )
        arrow = " ↓" if figure.best is min else " ↑" if figure.best is max else ""
        head = f"{escape(figure.name)}{arrow}<small>{escape(figure.meaning)}</small>"
        lines.append(f"<tr><th scope=row>{head}</th>{cells}</tr>")
    return (
        f'<div class="wide"><table>\n<thead><tr><th></th>{heads}</tr></thead>\n<tbody>\n'
        + "\n".join(lines)
        + f"\n</tbody></table></div>\n<p class=note>{_notes(comparison, likelihoods)}</p>"
    )


def _about(system: ModelReport) -> str:
    published, manifest = system.published, system.published.manifest
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
    judge, sharpness = comparison.judge, comparison.systems[0].quality.input_sharpness
    words = [
        "↓ less is better, ↑ more is better; the best is bold.",
        (
            "MSE, PSNR, SSIM and sharpness are of reconstructions from the posterior mean; distortion and"
            " ELBO take one posterior draw for each image."
        ),
        f"The inputs' sharpness is {sharpness:.4f}; noise is sharp too, hence a distance.",
    ]
    if len(likelihoods) > 1:
        words.append(
            f"Distortions, ELBOs and bits per dim of different likelihoods ({', '.join(sorted(likelihoods))})"
            " do not compare, and none is marked as best."
        )
    if judge is None:
        words.append(f"Fréchet distances were not measured: {comparison.unjudged}.")
    else:
        words.append(
            "Fréchet distances are taken in the features of a small classifier that was trained on the"
            f" training images; it is right on {judge.accuracy:.1%} of the test images. They do not compare"
            f" with those of other data or of Inception. {judge.reference_images} training images are"
            f" {three_digits(judge.reference)} from the test images."
        )
    return escape(" ".join(words))
