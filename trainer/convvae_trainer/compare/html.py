"""The comparison as one HTML file that needs no other file: styles and pictures are inside, no scripts."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from convvae_trainer.compare.claim import Case, Claim
from convvae_trainer.compare.comparison import Comparison
from convvae_trainer.compare.picture_sections import picture_sections_above, picture_sections_below
from convvae_trainer.compare.precision_table import precision_table
from convvae_trainer.compare.settings_table import settings_table
from convvae_trainer.compare.spread import RULE
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
# The style of a verdict; other verdicts are "open", except the one that nothing can be said.
VERDICT_STYLES = {"holds here": "yes", "does not hold here": "no"}
UNSAID = "cannot be said"
# One sentence for readers who come anew.
LECTURE = (
    "The lecture is &ldquo;Variational Autoencoders&rdquo; by Kate Farrahi (ECS Southampton, 2022): it"
    " introduces the VAE, and ends with reconstructions by a VAE, by VAE_Dis_l and by VAE/GAN, the"
    " systems of Larsen et al. 2016."
)
CLAIMS_NOTE = (
    "A claim on two systems is judged only if they are matched in likelihood, latent dimensions, data, steps"
    " and networks. A difference between systems counts if it goes beyond the spread of seeds"
    f" ({RULE}). One seed has no spread: then a difference cannot be said, and a claim on one system is"
    " judged for that run alone, which the verdict says."
)


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
    title = f"{_counted(comparison)} on {Path(comparison.dataset).name or comparison.dataset}"
    sections = [
        *picture_sections_above(comparison, pictures),
        ("Figures", table(comparison) + settings_table(comparison.systems)),
        *([("Precisions", precision_table(comparison.precisions))] if comparison.precisions else []),
        ("The claims of the lecture, and the results here", _claims(comparison.claims)),
        *picture_sections_below(comparison, pictures),
        ("How this was made", _origin(comparison, stem=stem)),
    ]
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
<p class="note">{LECTURE}</p>
<nav>{links}</nav>
</header>
{body}
</main>
</body>
</html>
"""


def _counted(comparison: Comparison) -> str:
    """Return for example "12 models of 4 systems"."""
    models, systems = len(comparison.models), len(comparison.systems)
    words = "1 model" if models == 1 else f"{models} models"
    if systems == models:
        return words
    return f"{words} of 1 system" if systems == 1 else f"{words} of {systems} systems"


def _claims(claims: Sequence[Claim]) -> str:
    return (
        f'<p class="note">{CLAIMS_NOTE}</p>\n<ol class="claims">\n'
        + "\n".join(map(_claim, claims))
        + "\n</ol>"
    )


def _claim(claim: Claim) -> str:
    style = VERDICT_STYLES.get(claim.verdict, "none" if claim.verdict == UNSAID else "open")
    cases = "".join(f"<li>{_mark(case)} {escape(case.words)}</li>" for case in claim.cases)
    reason = f"Criterion: {claim.criterion}" if cases else _capital(claim.missing)
    return (
        f"<li><p class=claim>{escape(claim.text)}</p>\n"
        f'<p><span class="verdict {style}">{escape(claim.verdict)}</span>'
        f" <small>{escape(reason)}.</small></p>{f'<ul>{cases}</ul>' if cases else ''}</li>"
    )


def _mark(case: Case) -> str:
    return "?" if case.holds is None else "✓" if case.holds else "✗"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _origin(comparison: Comparison, *, stem: str) -> str:
    libraries = ", ".join(f"{name} {version}" for name, version in comparison.libraries.items())
    command = f"<pre>{escape(comparison.command)}</pre>" if comparison.command else ""
    return (
        f"{command}\n<p class=note>{escape(comparison.date)}. {escape(libraries)}. All numbers are in"
        f" <code>{escape(stem)}.json</code>, all pictures in <code>{escape(stem)}_files/</code>.</p>"
    )
