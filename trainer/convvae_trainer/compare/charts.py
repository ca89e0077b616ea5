"""Charts as PNG: scatters of latents, and loss curves."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Circle
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation
from numpy.typing import NDArray

from convvae_trainer.compare.canvas import INK, PALE, new_figure, style_axes, to_png
from convvae_trainer.compare.image_row import LABEL_CHARACTERS

__all__ = ["VALIDATION", "LossCurve", "ScatterPanel", "class_name", "curves", "scatters"]

# The prefix of a metric's name for its value on the validation images.
VALIDATION = "validation_"

PANEL_PIXELS = 620
MAX_LEGEND = 20
# Longer names of classes are shortened.
CLASS_CHARACTERS = 14
CHARACTER_PIXELS = 12
# A legend of curves stands this far below its chart: below the numbers and the word "epoch".
LEGEND_INCHES = 0.46
# Up to this many points are marked on a curve.
MAX_MARKERS = 24
COLOURS = ("#1f6feb", "#d1242f", "#8250df", "#1a7f37")
# The radii of the prior's circles, in standard deviations, with their line styles.
CIRCLES: tuple[tuple[int, Any], ...] = ((1, "-"), (2, (0, (4, 3))))


@dataclass(frozen=True, kw_only=True, slots=True)
class ScatterPanel:
    """Points of shape (N, 2) under a title, coloured by label if there are labels."""

    title: str
    points: NDArray[np.floating[Any]]
    labels: NDArray[np.int64] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class LossCurve:
    """A model's metrics by name: a value for each epoch, or None where the epoch has none."""

    label: str
    epochs: Sequence[float]
    values: Mapping[str, Sequence[float | None]]

    def has(self, metric: str) -> bool:
        """Return whether any epoch has a finite value of this metric."""
        return any(value is not None and math.isfinite(value) for value in self.values.get(metric, ()))


def class_name(label: int, names: Sequence[str] | None, *, characters: int = CLASS_CHARACTERS) -> str:
    """Return the name of a class, cut to some characters; its number where the names are not known."""
    name = names[label] if names is not None and 0 <= label < len(names) else str(label)
    return name if len(name) <= characters else f"{name[: characters - 1]}…"


def scatters(panels: Sequence[ScatterPanel], *, class_names: Sequence[str] | None = None) -> bytes:
    """Return panels side by side, each with its own equal axes and the prior's circles of radius 1 and 2.

    Up to `MAX_LEGEND` classes are named in a legend.

    Args:
        panels: The panels.
        class_names: The names of the labels 0, 1 and so on. None: the labels are their names.
    """
    labels = [panel.labels for panel in panels if panel.labels is not None]
    classes = np.unique(np.concatenate(labels)) if labels else np.empty(0, np.int64)
    is_named = 0 < len(classes) <= MAX_LEGEND
    characters = max((len(class_name(int(label), class_names)) for label in classes), default=0)
    legend = 50 + CHARACTER_PIXELS * characters if is_named else 0
    plots = PANEL_PIXELS * len(panels) + 50
    figure = new_figure(plots + legend, PANEL_PIXELS + 40)
    share = plots / (plots + legend)
    figure.subplots_adjust(left=0.03 * share, right=0.985 * share, bottom=0.07, top=0.92, wspace=0.14)
    colours = class_colours(len(classes))
    all_axes: list[Axes] = list(figure.subplots(1, len(panels), squeeze=False)[0])
    for axes, panel in zip(all_axes, panels, strict=True):
        _draw_panel(axes, panel, classes, colours)
    if is_named:
        last = all_axes[-1]
        for label, colour in zip(classes, colours, strict=True):
            last.scatter([], [], s=18, color=colour, label=_plain(class_name(int(label), class_names)))
        last.legend(
            loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8, handletextpad=0.1
        )
    return to_png(figure)


def _draw_panel(
    axes: Axes, panel: ScatterPanel, classes: NDArray[np.int64], colours: NDArray[np.float64]
) -> None:
    x, y = panel.points[:, 0], panel.points[:, 1]
    if panel.labels is None:
        axes.scatter(x, y, s=5, color=COLOURS[0], alpha=0.5, linewidths=0)
    else:
        axes.scatter(x, y, s=5, c=colours[np.searchsorted(classes, panel.labels)], alpha=0.6, linewidths=0)
    for radius, style in CIRCLES:
        axes.add_patch(
            Circle((0, 0), radius, fill=False, edgecolor=INK, linewidth=0.9, linestyle=style, zorder=3)
        )
    # A few outliers do not shrink the rest.
    reach = max(2.4, 1.05 * float(np.quantile(np.abs(panel.points), 0.998)))
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    axes.set_title(panel.title, fontsize=10, color=INK)
    style_axes(axes)


def _plain(text: str) -> str:
    """Return text that a legend shows as it is: a $ would start a formula, and a _ hide the entry."""
    return " " + text.replace("$", r"\$")


def class_colours(count: int) -> NDArray[np.float64]:
    """Return a colour for each class, of shape (count, 4)."""
    from matplotlib import colormaps

    if count <= 10:
        return np.asarray(colormaps["tab10"](np.arange(count)))
    if count <= MAX_LEGEND:
        return np.asarray(colormaps["tab20"](np.arange(count)))
    return np.asarray(colormaps["turbo"](np.linspace(0, 1, count)))


def curves(models: Sequence[LossCurve], *, charts: Sequence[tuple[str, Mapping[str, str]]]) -> bytes:
    """Return a row of small charts for each model.

    Args:
        models: The models' metrics.
        charts: For each column its title, and its metrics: their names and what the legend calls them. A
            column is left out if no model has any of its metrics.
    """
    charts = [
        (title, metrics)
        for title, metrics in charts
        if any(model.has(metric) for model in models for metric in metrics)
    ]
    figure = new_figure(480 * len(charts) + 60, 440 * len(models) + 40)
    all_axes = figure.subplots(len(models), len(charts), squeeze=False)
    for row, model in zip(all_axes, models, strict=True):
        for axes, (title, metrics) in zip(row, charts, strict=True):
            _draw_curves(axes, model, title, metrics)
        row[0].annotate(
            "\n".join(textwrap.wrap(model.label, LABEL_CHARACTERS)),
            (0, 1),
            xycoords="axes fraction",
            xytext=(0, 19),
            textcoords="offset points",
            fontsize=10,
            fontweight="bold",
            color=INK,
        )
    figure.tight_layout(pad=0.6, h_pad=1.8)
    return to_png(figure)


def _draw_curves(axes: Axes, model: LossCurve, title: str, metrics: Mapping[str, str]) -> None:
    if not any(model.has(metric) for metric in metrics):
        axes.set_axis_off()
        return
    marker = "o" if len(model.epochs) <= MAX_MARKERS else ""
    for (metric, name), colour in zip(metrics.items(), COLOURS, strict=False):
        for key, label, style in (
            (metric, name, "-"),
            (VALIDATION + metric, f"{name}, validation", "--"),
        ):
            if model.has(key):
                values = [math.nan if value is None else value for value in model.values[key]]
                axes.plot(
                    model.epochs,
                    values,
                    color=colour,
                    lw=1.6,
                    ls=style,
                    marker=marker if style == "-" else "",
                    markersize=3,
                    label=label,
                )
    axes.set_title(title, fontsize=9, color=INK, loc="left")
    axes.set_xlabel("epoch", fontsize=8, color=PALE)
    axes.set_xlim(0, 1.02 * max(model.epochs))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.grid(color="#eaeef2", linewidth=0.8)
    style_axes(axes)
    axes.spines[["top", "right"]].set_visible(False)
    if len(axes.get_lines()) > 1:
        # Below the chart: inside of it there is no place that no curve may cross.
        axes.legend(
            loc="upper left",
            bbox_to_anchor=(0, 0),
            bbox_transform=axes.transAxes + ScaledTranslation(0, -LEGEND_INCHES, axes.figure.dpi_scale_trans),
            ncols=2,
            borderaxespad=0,
            borderpad=0,
            handlelength=1.6,
            columnspacing=1.2,
            frameon=False,
            fontsize=7,
            labelcolor=INK,
        )
