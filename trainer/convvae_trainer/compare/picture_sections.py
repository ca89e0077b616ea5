"""The sections of the report that are pictures with their captions, as HTML."""

import base64
from collections.abc import Mapping
from html import escape

from convvae_trainer.compare.comparison import Comparison
from convvae_trainer.compare.latent_scatter import TERM_NAMES, LatentScatter
from convvae_trainer.compare.nearest import CLOSE_SHARE, PriorDraws
from convvae_trainer.compare.spread import Spread
from convvae_trainer.compare.system import System

__all__ = ["picture_sections_above", "picture_sections_below"]

Section = tuple[str, str]


def picture_sections_above(comparison: Comparison, pictures: Mapping[str, bytes]) -> list[Section]:
    """Return the sections that come before the figures: head and HTML."""
    sections = [("Reconstructions", _reconstructions(comparison, pictures))]
    if "draws.png" in pictures:
        sections.append(("Draws from the prior", _draws(comparison, pictures)))
    return sections


def picture_sections_below(comparison: Comparison, pictures: Mapping[str, bytes]) -> list[Section]:
    """Return the sections that come after the claims: head and HTML."""
    sections = []
    if comparison.scatters:
        sections.append(("Why autoencoder?", _scatters(comparison, pictures)))
    sections.append(("Latent traversals", _traversals(comparison, pictures)))
    if any(system.first.interpolations for system in comparison.systems):
        sections.append(("Interpolations", _interpolations(comparison, pictures)))
    if "curves.png" in pictures:
        sections.append(("Loss curves", _curves(comparison, pictures)))
    return sections


def _picture(pictures: Mapping[str, bytes], name: str, *, alt: str, caption: str = "") -> str:
    data = base64.b64encode(pictures[name]).decode()
    below = f"\n<figcaption>{caption}</figcaption>" if caption else ""
    return f'<figure>\n<img src="data:image/png;base64,{data}" alt="{escape(alt)}">{below}\n</figure>'


def _shown_note(comparison: Comparison) -> str:
    """Return a sentence on which seed of a system is shown; "" if no system has several."""
    if all(len(system.members) == 1 for system in comparison.systems):
        return ""
    return " Of a system with several seeds the first one is shown; the figures are over all of them."


def _reconstructions(comparison: Comparison, pictures: Mapping[str, bytes]) -> str:
    by_class = "" if comparison.sample.labels is None else ", from as many classes as possible"
    caption = (
        f"Test images drawn by seed {comparison.seed}{by_class}. Below them are the reconstructions by each"
        f" system, decoded from the posterior mean.{_shown_note(comparison)}"
    )
    names = ", ".join(system.name for system in comparison.systems)
    return _picture(
        pictures, "reconstructions.png", alt=f"Test images over reconstructions by {names}", caption=caption
    )


def _draws(comparison: Comparison, pictures: Mapping[str, bytes]) -> str:
    without = [escape(system.name) for system in comparison.systems if system.first.draws is None]
    caption = (
        "At the top are test images. Below them are draws from the prior of each system, decoded, and under"
        " each draw the training image that is nearest to it in pixels." + _shown_note(comparison)
    )
    if without:
        caption += f" {', '.join(without)} has no prior, and so no draws."
    picture = _picture(pictures, "draws.png", alt="Draws over their nearest training images", caption=caption)
    lines = [_draws_line(system, system.first.draws) for system in comparison.systems if system.first.draws]
    return (
        f'{picture}\n<ul class="plain">\n' + "\n".join(lines) + "\n</ul>\n<p class=note>A model that has"
        " memorised its training images draws copies of them: then most draws are closer to a training image"
        " than test images are. Blurred draws are closer as well, since a smooth image is close to many:"
        " look at the pairs.</p>"
    )


def _draws_line(system: System, draws: PriorDraws) -> str:
    share = system.spread(lambda model: None if model.draws is None else model.draws.close_share)
    distance = system.spread(lambda model: None if model.draws is None else model.draws.distance)
    assert share is not None
    assert distance is not None
    return (
        f"<li><b>{escape(system.name)}</b>: {_memory_words(share)}. The median distance to the nearest"
        f" training image is {distance.text('.3f')} for {draws.searched} draws, and"
        f" {draws.held_out_distance:.3f} for test images (root mean square of pixels in 0..1)."
        f" {share.mean:.0%} of the draws are as close as the closest {CLOSE_SHARE:.0%} of test images.</li>"
    )


def _memory_words(share: Spread) -> str:
    """Return whether training images were memorised, as far as the share of close draws can tell."""
    if share.mean <= 2 * CLOSE_SHARE:
        return "no sign of memorised training images"
    if share.mean < 0.5:
        return "some draws are close to training images"
    return "most draws are close to training images: memorised, or blurred"


def _scatters(comparison: Comparison, pictures: Mapping[str, bytes]) -> str:
    shown = comparison.shown_scatters
    first = shown[0]
    colours = "coloured by class" if first.labels is not None else "in one colour, since there are no labels"
    caption = (
        f"Draws from the posteriors of {len(first.draws)} training images in models with two latent"
        f" dimensions and a {escape(first.likelihood)} likelihood, {colours}. Each model was trained for"
        f" {comparison.scatter_epochs} epochs on"
        f" {first.train_images} training images of {escape(str(first.image))}. The circles are the prior's"
        " first and second standard deviation. Both axes of a panel have the same scale; the panels have"
        " different scales. Spread and deviation are of the images that are shown as points. Rate and"
        f" distortion are of {first.test_images} test images, with one posterior draw for each."
    )
    seeds = len(comparison.scatters) // len(shown)
    if seeds > 1:
        caption += f" The picture and the numbers below are of seed {first.seed}; {seeds} seeds were trained."
    picture = _picture(
        pictures,
        "scatter.png",
        alt="Draws from the posteriors of three two-dimensional models",
        caption=caption,
    )
    lines = "\n".join(_scatter_line(scatter) for scatter in shown)
    return f'{picture}\n<ul class="plain">\n{lines}\n</ul>'


def _scatter_line(scatter: LatentScatter) -> str:
    separation = ""
    if scatter.separation is not None:
        separation = f"; {scatter.separation:.0%} of their variance lies between classes"
    name = TERM_NAMES[scatter.terms]
    return (
        f"<li><b>{escape(name[:1].upper() + name[1:])}</b>: the posterior means spread by"
        f" {scatter.spread:.3g} around their centre{separation}; the mean posterior deviation is"
        f" {scatter.deviation:.3g} (the prior's is 1). On test images the rate is {scatter.rate:.3g} nats,"
        f" and the distortion is {scatter.distortion:.1f} nats.</li>"
    )


def _traversals(comparison: Comparison, pictures: Mapping[str, bytes]) -> str:
    parts = [
        (
            "<p>Each row starts at the posterior mean of the first image shown, and sets one latent dimension"
            " to -3 … 3. The dimensions are those with the highest rate. An <code>ae</code> has no rate, and"
            " its codes have no unit: its dimensions are those that vary most, moved by -3 … 3 of their"
            " standard deviations.</p>"
        )
    ]
    for number, system in enumerate(comparison.systems, start=1):
        alt = f"Latent traversals of {system.name}"
        parts += [_heading(system), _picture(pictures, f"traversal-{number}.png", alt=alt)]
    return "\n".join(parts)


def _interpolations(comparison: Comparison, pictures: Mapping[str, bytes]) -> str:
    parts = ["<p>A straight line between the posterior means of two test images, decoded.</p>"]
    for number, system in enumerate(comparison.systems, start=1):
        alt = f"Interpolations of {system.name}"
        parts += [_heading(system), _picture(pictures, f"interpolation-{number}.png", alt=alt)]
    return "\n".join(parts)


def _heading(system: System) -> str:
    return f"<h3>{escape(system.name)} <small>{escape(system.note)}</small></h3>"


def _curves(comparison: Comparison, pictures: Mapping[str, bytes]) -> str:
    missing = [system.name for system in comparison.systems if not system.first.bundle.loss_curves()]
    caption = (
        "Means over the training images of each epoch, and, dashed, of the validation images with the"
        f" averaged weights; from the metrics in the bundle.{_shown_note(comparison)}"
    )
    if missing:
        caption += f" These have no metrics: {', '.join(map(escape, missing))}."
    return _picture(pictures, "curves.png", alt="Loss curves", caption=caption)
