"""The comparison as one HTML file that needs no other file: styles and pictures are inside, no scripts."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from convvae_trainer.compare.claims import Claim
from convvae_trainer.compare.comparison import Comparison
from convvae_trainer.compare.latent_scatter import TERM_NAMES, LatentScatter
from convvae_trainer.compare.model_report import ModelReport
from convvae_trainer.compare.precision_table import precision_table
from convvae_trainer.compare.style import STYLE
from convvae_trainer.compare.table import table
from convvae_trainer.data.trained_on import left_out_text
from convvae_trainer.errors import BadConfig
from convvae_trainer.runs.checkpoint import replace_file
from convvae_trainer.runs.lock import locked
from convvae_trainer.runs.ownership import made_folder

__all__ = ["render", "write"]

# How long to wait for another process that writes the same report.
LOCK_WAIT_S = 60.0
# The style of a verdict; other verdicts are "open", and a claim without cases is "none".
VERDICT_STYLES = {"holds here": "yes", "does not hold here": "no"}


def write(comparison: Comparison, pictures: Mapping[str, bytes], numbers: str, out: Path) -> None:
    """Write REPORT.html, REPORT.json and the pictures in REPORT_files/; existing files are replaced.

    Two commands that write the same report do so one after the other. A report that was not there before is
    removed if the command fails in between.

    Raises:
        BadConfig: A file cannot be written.
    """
    folder = out.with_name(f"{out.stem}_files")
    html = render(comparison, pictures, stem=out.stem).encode()
    files = {folder / name: data for name, data in pictures.items()}
    files |= {out.with_suffix(".json"): (numbers + "\n").encode(), out: html}
    absent = [path for path in files if not path.exists()]
    try:
        with made_folder(folder), locked(folder, wait_s=LOCK_WAIT_S):
            try:
                for path, data in files.items():
                    replace_file(path, data)
            except BaseException:
                for path in absent:
                    path.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise BadConfig(f"--out: {out} cannot be written: {error.strerror or error}") from None


def render(comparison: Comparison, pictures: Mapping[str, bytes], *, stem: str) -> str:
    """Return the report as HTML."""
    count = len(comparison.models)
    num_models = "1 model" if count == 1 else f"{count} models"
    title = f"{num_models} on {Path(comparison.dataset).name or comparison.dataset}"
    sections = [
        ("Reconstructions", _reconstructions(comparison, pictures)),
        ("Figures", table(comparison)),
        *([("Precisions", precision_table(comparison.precisions))] if comparison.precisions else []),
        ("The claims of the lecture, and the results here", _claims(comparison.claims)),
    ]
    if comparison.scatters:
        sections.append(("Why autoencoder?", _scatters(comparison, pictures)))
    sections.append(("Latent traversals", _traversals(comparison, pictures)))
    if any(model.interpolations for model in comparison.models):
        sections.append(("Interpolations", _interpolations(comparison, pictures)))
    if "curves.png" in pictures:
        sections.append(("Loss curves", _curves(comparison, pictures)))
    sections.append(("How this was made", _origin(comparison, stem=stem)))
    links = " ".join(f'<a href="#s{n}">{escape(head)}</a>' for n, (head, _) in enumerate(sections, start=1))
    body = "\n".join(
        f'<section id="s{n}">\n<h2>{escape(head)}</h2>\n{text}\n</section>'
        for n, (head, text) in enumerate(sections, start=1)
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<header>
<h1>{escape(title)}</h1>
<p class="lead">{len(comparison.sample.images)} test images of {escape(str(comparison.image))}:
{escape(comparison.split)}. Left out: {escape(left_out_text(comparison.left_out))}.</p>
<nav>{links}</nav>
</header>
{body}
</main>
</body>
</html>
"""


def _picture(pictures: Mapping[str, bytes], name: str, *, alt: str, caption: str = "") -> str:
    data = base64.b64encode(pictures[name]).decode()
    below = f"\n<figcaption>{caption}</figcaption>" if caption else ""
    return f'<figure>\n<img src="data:image/png;base64,{data}" alt="{escape(alt)}">{below}\n</figure>'


def _reconstructions(comparison: Comparison, pictures: Mapping[str, bytes]) -> str:
    by_class = "" if comparison.sample.labels is None else ", from as many classes as possible"
    caption = (
        f"Test images drawn by seed {comparison.seed}{by_class}. Below them are the reconstructions by each"
        " model, decoded from the posterior mean."
    )
    names = ", ".join(model.label for model in comparison.models)
    return _picture(
        pictures, "reconstructions.png", alt=f"Test images over reconstructions by {names}", caption=caption
    )


def _claims(claims: Sequence[Claim]) -> str:
    return '<ol class="claims">\n' + "\n".join(_claim(claim) for claim in claims) + "\n</ol>"


def _claim(claim: Claim) -> str:
    style = VERDICT_STYLES.get(claim.verdict, "open" if claim.cases else "none")
    cases = "".join(f"<li>{'✓' if holds else '✗'} {escape(words)}</li>" for holds, words in claim.cases)
    reason = f"Criterion: {claim.criterion}" if cases else _capital(claim.missing)
    return (
        f"<li><p class=claim>{escape(claim.text)}</p>\n"
        f'<p><span class="verdict {style}">{escape(claim.verdict)}</span>'
        f" <small>{escape(reason)}.</small></p>{f'<ul>{cases}</ul>' if cases else ''}</li>"
    )


def _scatters(comparison: Comparison, pictures: Mapping[str, bytes]) -> str:
    first = comparison.scatters[0]
    colours = "coloured by class" if first.labels is not None else "in one colour, since there are no labels"
    caption = (
        f"Draws from the posteriors of {len(first.draws)} training images in models with two latent"
        f" dimensions, {colours}. Each model was trained for {comparison.scatter_epochs} epochs on"
        f" {first.train_images} training images of {escape(str(first.image))}. The circles are the prior's"
        " first and second standard deviation. Both axes of a panel have the same scale; the panels have"
        " different scales. Spread and deviation are of the images that are shown as points. Rate and"
        f" distortion are of {first.test_images} test images, with one posterior draw for each."
    )
    picture = _picture(
        pictures,
        "scatter.png",
        alt="Draws from the posteriors of three two-dimensional models",
        caption=caption,
    )
    lines = "\n".join(_scatter_line(scatter) for scatter in comparison.scatters)
    return f'{picture}\n<ul class="plain">\n{lines}\n</ul>'


def _scatter_line(scatter: LatentScatter) -> str:
    separation = ""
    if scatter.separation is not None:
        separation = f"; {scatter.separation:.0%} of their variance lies between classes"
    return (
        f"<li><b>{escape(_capital(TERM_NAMES[scatter.terms]))}</b>: the posterior means spread by"
        f" {scatter.spread:.3g} around their centre{separation}; the mean posterior deviation is"
        f" {scatter.deviation:.3g} (the prior's is 1). On test images the rate is {scatter.rate:.3g} nats,"
        f" and the distortion is {scatter.distortion:.1f} nats.</li>"
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _traversals(comparison: Comparison, pictures: Mapping[str, bytes]) -> str:
    parts = [
        (
            "<p>Each row starts at the posterior mean of the first image shown, and sets one latent dimension"
            " to -3 … 3. The dimensions are those with the highest rate. An <code>ae</code> has no rate, and"
            " its codes have no unit: its dimensions are those that vary most, moved by -3 … 3 of their"
            " standard deviations.</p>"
        )
    ]
    for number, model in enumerate(comparison.models, start=1):
        parts.append(_heading(model))
        parts.append(_picture(pictures, f"traversal-{number}.png", alt=f"Latent traversals of {model.label}"))
    return "\n".join(parts)


def _interpolations(comparison: Comparison, pictures: Mapping[str, bytes]) -> str:
    parts = ["<p>A straight line between the posterior means of two test images, decoded.</p>"]
    for number, model in enumerate(comparison.models, start=1):
        parts.append(_heading(model))
        parts.append(
            _picture(pictures, f"interpolation-{number}.png", alt=f"Interpolations of {model.label}")
        )
    return "\n".join(parts)


def _heading(model: ModelReport) -> str:
    return f"<h3>{escape(model.label)} <small>{escape(model.objective)}</small></h3>"


def _curves(comparison: Comparison, pictures: Mapping[str, bytes]) -> str:
    missing = [model.label for model in comparison.models if not model.bundle.loss_curves()]
    caption = "Means over the training images of each epoch, from the metrics in the bundle."
    if missing:
        caption += f" These have no metrics: {escape(', '.join(missing))}."
    return _picture(pictures, "curves.png", alt="Loss curves", caption=caption)


def _origin(comparison: Comparison, *, stem: str) -> str:
    libraries = ", ".join(f"{name} {version}" for name, version in comparison.libraries.items())
    command = f"<pre>{escape(comparison.command)}</pre>" if comparison.command else ""
    return (
        f"{command}\n<p class=note>{escape(comparison.date)}. {escape(libraries)}. All numbers are in"
        f" <code>{escape(stem)}.json</code>, all pictures in <code>{escape(stem)}_files/</code>.</p>"
    )
