"""The comparison as one HTML file that needs nothing else: styles and pictures inside, no scripts."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from convvae_trainer.compare.claims import Claim
from convvae_trainer.compare.comparison import TERMS, Comparison
from convvae_trainer.compare.measure import ModelReport
from convvae_trainer.compare.style import STYLE
from convvae_trainer.compare.table import table
from convvae_trainer.errors import BadConfig
from convvae_trainer.runs.checkpoint import replace_file

__all__ = ["render", "write"]


def write(comparison: Comparison, pictures: Mapping[str, bytes], numbers: str, out: Path) -> None:
    """Write REPORT.html, REPORT.json and the pictures in REPORT_files/, replacing those of an earlier run.

    Raises:
        BadConfig: A file cannot be written.
    """
    folder = out.with_name(f"{out.stem}_files")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in pictures.items():
            replace_file(folder / name, data)
        replace_file(out.with_suffix(".json"), (numbers + "\n").encode())
        replace_file(out, render(comparison, pictures, stem=out.stem).encode())
    except OSError as error:
        raise BadConfig(f"--out: {out} cannot be written: {error.strerror or error}") from None


def render(comparison: Comparison, pictures: Mapping[str, bytes], *, stem: str) -> str:
    """Return the report as HTML."""
    count = len(comparison.systems)
    models = "1 model" if count == 1 else f"{count} models"
    title = f"{models} on {Path(comparison.dataset).name or comparison.dataset}"
    sections = [
        ("Reconstructions", _reconstructions(comparison, pictures)),
        ("Figures", table(comparison)),
        ("What the lecture says, and what is found here", _claims(comparison.claims)),
    ]
    if comparison.planes:
        sections.append(("Why autoencoder?", _planes(comparison, pictures)))
    sections.append(("Latent traversals", _traversals(comparison, pictures)))
    if any(system.interpolation for system in comparison.systems):
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
<p class="lead">{len(comparison.chosen.images)} test images of {escape(str(comparison.image))}:
{escape(comparison.split)}.</p>
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
    by_class = "" if comparison.chosen.labels is None else ", of as many classes as there is room for"
    which = f"Test images drawn by seed {comparison.seed}{by_class}"
    caption = f"{which}; below, what each model makes of them: encoded, and decoded from the posterior mean."
    names = ", ".join(system.label for system in comparison.systems)
    return _picture(
        pictures, "reconstructions.png", alt=f"Test images over reconstructions by {names}", caption=caption
    )


def _claims(claims: Sequence[Claim]) -> str:
    items = []
    for claim in claims:
        verdict = claim.verdict
        kind = {"holds here": "yes", "does not hold here": "no"}.get(
            verdict, "open" if claim.cases else "none"
        )
        cases = "".join(f"<li>{'✓' if holds else '✗'} {escape(words)}</li>" for holds, words in claim.cases)
        shown = f"<ul>{cases}</ul>" if cases else ""
        reason = f"Measured by: {claim.criterion}" if cases else _capital(claim.missing)
        items.append(
            f"<li><p class=claim>{escape(claim.text)}</p>\n"
            f'<p><span class="verdict {kind}">{escape(verdict)}</span>'
            f" <small>{escape(reason)}.</small></p>{shown}</li>"
        )
    return '<ol class="claims">\n' + "\n".join(items) + "\n</ol>"


def _planes(comparison: Comparison, pictures: Mapping[str, bytes]) -> str:
    planes = comparison.planes
    lines = []
    for plane in planes:
        apart = (
            ""
            if plane.separation is None
            else f"; {plane.separation:.0%} of their variance lies between classes"
        )
        lines.append(
            f"<li><b>{escape(_capital(TERMS[plane.terms]))}</b>: the posterior means spread by"
            f" {plane.spread:.3g} around their centre{apart}; the mean posterior deviation is"
            f" {plane.deviation:.3g} (the prior's is 1). Of test images the rate is {plane.rate:.3g} nats,"
            f" the distortion {plane.distortion:.1f} nats.</li>"
        )
    coloured = (
        "coloured by class" if planes[0].labels is not None else "in one colour, since there are no labels"
    )
    caption = (
        f"Draws from the posteriors of {len(planes[0].draws)} training images in models with two latent"
        f" dimensions, {coloured}. Each model was trained for {comparison.plane_epochs} epochs on"
        f" {planes[0].train_images} training images of {escape(str(planes[0].image))}. Circles: the prior's"
        " first and second standard deviation. Both axes of a panel have one scale; each panel has its own."
        " Spread and deviation are of the images that are shown as points, rate and distortion of"
        f" {planes[0].test_images} test images, with one posterior draw for each."
    )
    picture = _picture(
        pictures,
        "scatter.png",
        alt="Draws from the posteriors of three two-dimensional models",
        caption=caption,
    )
    return picture + '\n<ul class="plain">\n' + "\n".join(lines) + "\n</ul>"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _traversals(comparison: Comparison, pictures: Mapping[str, bytes]) -> str:
    parts = [
        (
            "<p>From the posterior mean of the first image shown, one latent dimension at a time is set to"
            " -3 … 3; the dimensions are those with the highest rate. An <code>ae</code> has no rate, its"
            " codes no unit: there they are the dimensions that vary most, moved by -3 … 3 of their standard"
            " deviations.</p>"
        )
    ]
    for number, system in enumerate(comparison.systems, start=1):
        parts.append(_heading(system))
        parts.append(
            _picture(pictures, f"traversal-{number}.png", alt=f"Latent traversals of {system.label}")
        )
    return "\n".join(parts)


def _interpolations(comparison: Comparison, pictures: Mapping[str, bytes]) -> str:
    parts = ["<p>In a straight line from the posterior mean of one test image to that of another.</p>"]
    for number, system in enumerate(comparison.systems, start=1):
        parts.append(_heading(system))
        parts.append(
            _picture(pictures, f"interpolation-{number}.png", alt=f"Interpolations of {system.label}")
        )
    return "\n".join(parts)


def _heading(system: ModelReport) -> str:
    return f"<h3>{escape(system.label)} <small>{escape(system.objective)}</small></h3>"


def _curves(comparison: Comparison, pictures: Mapping[str, bytes]) -> str:
    missing = [system.label for system in comparison.systems if not system.model.curves()]
    caption = "Means over the training images of each epoch, from the metrics that travel with the bundle."
    if missing:
        caption += f" Without such metrics: {escape(', '.join(missing))}."
    return _picture(pictures, "curves.png", alt="Loss curves", caption=caption)


def _origin(comparison: Comparison, *, stem: str) -> str:
    libraries = ", ".join(f"{name} {version}" for name, version in comparison.libraries.items())
    command = f"<pre>{escape(comparison.command)}</pre>" if comparison.command else ""
    return (
        f"{command}\n<p class=note>{escape(comparison.date)}. {escape(libraries)}. All numbers:"
        f" <code>{escape(stem)}.json</code>; the pictures: <code>{escape(stem)}_files/</code>.</p>"
    )
