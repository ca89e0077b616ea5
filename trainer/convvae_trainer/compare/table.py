"""The report's table: the figures of all systems over their seeds, what each means, and the best of each."""

from collections.abc import Sequence
from html import escape

from convvae_trainer.compare.claim import three_digits
from convvae_trainer.compare.comparison import Comparison
from convvae_trainer.compare.figures import FIGURES, FigureLine
from convvae_trainer.compare.spread import RULE, Spread, compared
from convvae_trainer.compare.system import System
from convvae_trainer.exports.model_card import ADVICE, BEST_EPOCH

__all__ = ["table"]


def table(comparison: Comparison) -> str:
    """Return the table as HTML: a line for each figure, a column for each system, and notes."""
    systems = comparison.systems
    likelihoods = {system.recipes[0].likelihood for system in systems}
    heads = "".join(
        f"<th scope=col>{escape(system.name)}<small>{escape(_about(system))}</small></th>"
        for system in systems
    )
    lines = [line for figure in FIGURES if (line := _line(figure, systems, likelihoods))]
    return (
        f'<div class="wide"><table>\n<thead><tr><th></th>{heads}</tr></thead>\n<tbody>\n'
        + "\n".join(lines)
        + f"\n</tbody></table></div>\n<p class=note>{_notes(comparison, likelihoods)}</p>"
        + _advice(comparison)
    )


def _line(figure: FigureLine, systems: Sequence[System], likelihoods: set[str]) -> str:
    """Return the figure's line; "" if no system has the figure."""
    spreads = [system.spread(figure.value) for system in systems]
    known = [spread for spread in spreads if spread is not None]
    if not known:
        return ""
    is_comparable = not (figure.depends_on_likelihood and len(likelihoods) > 1)
    best = _best(figure, known) if is_comparable else None
    cells = "".join(
        _cell(spread, figure.form, is_best=spread is not None and spread is best) for spread in spreads
    )
    arrow = " ↓" if figure.best is min else " ↑" if figure.best is max else ""
    head = f"{escape(figure.name)}{arrow}<small>{escape(figure.meaning)}</small>"
    return f"<tr><th scope=row>{head}</th>{cells}</tr>"


def _best(figure: FigureLine, spreads: Sequence[Spread]) -> Spread | None:
    """Return the best of several, if it is better than each other one beyond the spread of seeds."""
    if figure.best is None or len(spreads) < 2:
        return None
    best_mean = figure.best([spread.mean for spread in spreads])
    best = next(spread for spread in spreads if spread.mean == best_mean)
    is_beyond = all(compared(best, other) in (-1, 1) for other in spreads if other is not best)
    return best if is_beyond else None


def _about(system: System) -> str:
    """Return the line below a system's name."""
    published, manifest = system.first.published, system.first.published.manifest
    best = manifest.training.metrics.get(BEST_EPOCH)
    seeds = (
        f"seed {system.seeds[0]}"
        if len(system.seeds) == 1
        else f"{len(system.seeds)} seeds: {', '.join(map(str, system.seeds))}"
    )
    return (
        f"{', '.join(member.label for member in system.members)}; {manifest.objective},"
        f" {manifest.likelihood.name}; version {published.version}, {published.precision};"
        f" {manifest.training.epochs:g} epochs of {manifest.training.dataset}"
        + ("" if best is None else f", the weights are those after epoch {best}")
        + f"; {seeds}"
    )


def _cell(spread: Spread | None, form: str, *, is_best: bool) -> str:
    if spread is None:
        return "<td class=none>&ndash;</td>"
    text = escape(_number(spread.mean, form))
    if spread.deviation is not None:
        text += f" <small>± {escape(_number(spread.deviation, form))}</small>"
    return f"<td{' class=best' if is_best else ''}>{text}</td>"


def _number(value: float, form: str) -> str:
    if form == "d":
        return f"{value:.0f}" if value.is_integer() else f"{value:.1f}"
    return format(value, form) if form else three_digits(value)


def _notes(comparison: Comparison, likelihoods: set[str]) -> str:
    sharpness = comparison.models[0].quality.input_sharpness
    notes = [
        "↓ less is better, ↑ more is better.",
        _spread_note(comparison.systems),
        (
            "MSE, PSNR, SSIM and sharpness are of reconstructions from the posterior mean; distortion and"
            " ELBO take one posterior draw for each image."
        ),
        (
            f"The inputs' sharpness is {sharpness:.4f}. Noise is sharp too: a small distance from it is"
            " better than a high sharpness."
        ),
    ]
    sized = comparison.models[0].sized
    if sized.halvings:
        notes.append(
            "The inputs are enlarged: they have edges of their own at"
            f" {sized.height}x{sized.width} pixels. There, and at half of that, their sharpness is judged."
        )
    if len(likelihoods) > 1:
        notes.append(
            "Distortion, ELBO and bits per dim cannot be compared between likelihoods"
            f" ({', '.join(sorted(likelihoods))}): none is marked as best."
        )
    notes.append(_classifier_note(comparison))
    return escape(" ".join(notes))


def _advice(comparison: Comparison) -> str:
    """Return the advice that the models' trainings gave, as HTML, or "" if they gave none."""
    lines = [
        f"<li>{escape(model.label)}: {escape(line)}.</li>"
        for model in comparison.models
        for line in _lines(model.published.manifest.training.metrics.get(ADVICE))
    ]
    return f"\n<p class=note>Advice of the trainings:</p><ul>{''.join(lines)}</ul>" if lines else ""


def _lines(advice: object) -> list[str]:
    # Whoever made the bundle can write anything there.
    return [str(line) for line in advice] if isinstance(advice, list | tuple) else []


def _spread_note(systems: Sequence[System]) -> str:
    alone = [system.name for system in systems if len(system.members) == 1]
    if len(alone) == len(systems):
        return (
            "Each system is one model of one seed. One seed has no spread: a difference may be chance, and no"
            " number is marked as best. Models that differ in the seed alone form one system."
        )
    note = (
        "Models that differ in the seed alone form one system: mean ± sample standard deviation over its"
        f" seeds. A number is bold if it is better than each other one beyond the spread of seeds ({RULE})."
    )
    if alone:
        note += f" One seed has no spread: {', '.join(alone)}."
    return note


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
