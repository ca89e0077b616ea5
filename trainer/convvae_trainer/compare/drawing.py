"""The report's figures as PNG: sheets of images, scatters of latents, loss curves."""

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

__all__ = ["Curve", "Row", "Scatter", "curves", "scatters", "sheet"]

DPI = 160
# Tiles are enlarged by a whole factor to at least this many pixels: no pixel is wider than its neighbour.
TILE_PIXELS = 96
GAP_PIXELS = 6
LABEL_CHARACTERS = 24
LINE_PIXELS = 26
CHARACTER_PIXELS = 14
INK, PALE = "#1f2328", "#6a737d"
MAX_LEGEND = 20
COLOURS = ("#1f6feb", "#d1242f", "#8250df", "#1a7f37")


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A row of images, uint8 of shape (N, H, W, C), with what stands to its left."""

    label: str
    note: str = ""
    images: NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scatter:
    """Points of shape (N, 2) under a title, coloured by label where there are labels."""

    title: str
    points: NDArray[np.floating[Any]]
    labels: NDArray[np.int64] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """A model's metrics over its epochs: by name a value for each epoch, None where there is none."""

    label: str
    epochs: Sequence[float]
    values: Mapping[str, Sequence[float | None]]


def sheet(rows: Sequence[Row], *, captions: Sequence[str] = ()) -> bytes:
    """Return rows of images under captions, each image enlarged by the same whole factor.

    Args:
        rows: Of images of one shape, as many in each.
        captions: What stands above each column.
    """
    count, height, width, _ = rows[0].images.shape
    scale = math.ceil(TILE_PIXELS / min(height, width))
    tile_height, tile_width = height * scale, width * scale
    wrapped = [textwrap.wrap(row.label, LABEL_CHARACTERS) for row in rows]
    longest = max(
        [len(line) for lines in wrapped for line in lines] + [math.ceil(0.85 * len(row.note)) for row in rows]
    )
    left = (longest + 2) * CHARACTER_PIXELS
    lines = max(len(lines) + bool(row.note) for lines, row in zip(wrapped, rows, strict=True))
    pitch = max(tile_height + GAP_PIXELS, lines * LINE_PIXELS)
    top = LINE_PIXELS + GAP_PIXELS if captions else GAP_PIXELS
    total_width = left + count * (tile_width + GAP_PIXELS)
    total_height = top + len(rows) * pitch
    figure = _figure(total_width, total_height)
    for column, caption in enumerate(captions):
        x = left + column * (tile_width + GAP_PIXELS) + tile_width / 2
        _text(figure, x, top / 2, caption, colour=PALE, size=8, align="center")
    for number, (row, label) in enumerate(zip(rows, wrapped, strict=True)):
        middle = top + number * pitch + pitch / 2
        first = middle - (len(label) + bool(row.note) - 1) * LINE_PIXELS / 2
        for line, text in enumerate([*label, row.note] if row.note else label):
            is_note = line == len(label)
            colour, size = (PALE, 8) if is_note else (INK, 9)
            _text(figure, 4, first + line * LINE_PIXELS, text, colour=colour, size=size)
        strip = _strip(row.images, scale)
        bottom = total_height - middle - strip.shape[0] / 2
        box = (
            left / total_width,
            bottom / total_height,
            strip.shape[1] / total_width,
            strip.shape[0] / total_height,
        )
        axes = figure.add_axes(box)
        axes.imshow(strip, interpolation="nearest", aspect="auto")
        axes.set_axis_off()
    return _png(figure)


def scatters(panels: Sequence[Scatter]) -> bytes:
    """Return scatters side by side, each with its own equal axes and the prior's circles of radius 1 and 2.

    A few labels are in a legend.
    """
    side = 620
    figure = _figure(side * len(panels) + 110, side + 40)
    found = [panel.labels for panel in panels if panel.labels is not None]
    classes = np.unique(np.concatenate(found)) if found else np.empty(0, np.int64)
    colours = _class_colours(len(classes))
    axes: Axes
    for axes, panel in zip(_row_of_axes(figure, len(panels)), panels, strict=True):
        reach = max(2.4, 1.05 * float(np.quantile(np.abs(panel.points), 0.998)))
        for radius, style in ((1, "-"), (2, (0, (4, 3)))):
            axes.add_patch(
                Circle((0, 0), radius, fill=False, edgecolor=INK, linewidth=0.9, linestyle=style, zorder=3)
            )
        if panel.labels is None:
            axes.scatter(
                panel.points[:, 0], panel.points[:, 1], s=5, color=COLOURS[0], alpha=0.5, linewidths=0
            )
        else:
            at = np.searchsorted(classes, panel.labels)
            axes.scatter(panel.points[:, 0], panel.points[:, 1], s=5, c=colours[at], alpha=0.6, linewidths=0)
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
        axes.set_title(panel.title, fontsize=10, color=INK)
        axes.tick_params(labelsize=8, colors=PALE)
        for spine in axes.spines.values():
            spine.set_edgecolor("#d0d7de")
    if 0 < len(classes) <= MAX_LEGEND:
        last = figure.axes[-1]
        for label, colour in zip(classes, colours, strict=True):
            last.scatter([], [], s=18, color=colour, label=str(label))
        last.legend(
            loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8, handletextpad=0.1
        )
    return _png(figure)


def curves(models: Sequence[Curve], *, columns: Sequence[tuple[str, Mapping[str, str]]]) -> bytes:
    """Return a row of small charts for each model.

    Args:
        models: Their metrics.
        columns: For each chart its title, and of the metrics in it the name and the words for it.
    """
    columns = [
        (title, metrics)
        for title, metrics in columns
        if any(_has(model, name) for model in models for name in metrics)
    ]
    figure = _figure(480 * len(columns) + 60, 350 * len(models) + 40)
    grid = figure.subplots(len(models), len(columns), squeeze=False)
    for row, model in zip(grid, models, strict=True):
        for axes, (title, metrics) in zip(row, columns, strict=True):
            drawn = 0
            for (name, words), colour in zip(metrics.items(), COLOURS, strict=False):
                if not _has(model, name):
                    continue
                values = [math.nan if value is None else value for value in model.values[name]]
                marker = "o" if len(values) < 25 else ""
                axes.plot(
                    model.epochs, values, color=colour, lw=1.6, marker=marker, markersize=3, label=words
                )
                drawn += 1
            if not drawn:
                axes.set_axis_off()
                continue
            axes.set_title(title, fontsize=9, color=INK, loc="left")
            axes.set_xlabel("epoch", fontsize=8, color=PALE)
            axes.set_xlim(0, 1.02 * max(model.epochs))
            axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
            axes.tick_params(labelsize=8, colors=PALE)
            axes.grid(color="#eaeef2", linewidth=0.8)
            axes.spines[["top", "right"]].set_visible(False)
            axes.spines[["left", "bottom"]].set_edgecolor("#d0d7de")
            if len(metrics) > 1:
                axes.legend(frameon=False, fontsize=8, labelcolor=INK)
        row[0].annotate(
            "\n".join(textwrap.wrap(model.label, LABEL_CHARACTERS)),
            (0, 1.2),
            xycoords="axes fraction",
            fontsize=10,
            fontweight="bold",
            color=INK,
        )
    figure.tight_layout(pad=0.6, h_pad=1.8)
    return _png(figure)


def _has(model: Curve, name: str) -> bool:
    return any(value is not None and math.isfinite(value) for value in model.values.get(name, ()))


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _row_of_axes(figure: Figure, count: int) -> list[Axes]:
    figure.subplots_adjust(left=0.03, right=0.93, bottom=0.07, top=0.92, wspace=0.14)
    return list(figure.subplots(1, count, squeeze=False)[0])


def _text(
    figure: Figure, x: float, y: float, text: str, *, colour: str, size: float, align: str = "left"
) -> None:
    """Write a line at pixels from the top left corner."""
    width, height = figure.get_size_inches() * DPI
    # A $ would start a formula.
    figure.text(
        x / width,
        1 - y / height,
        text,
        color=colour,
        size=size,
        ha=align,
        va="center",
        parse_math=False,
    )


def _strip(images_NHWC: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Return images side by side with white gaps, enlarged, as RGB."""
    count, height, width, channels = images_NHWC.shape
    large = images_NHWC.repeat(scale, axis=1).repeat(scale, axis=2)
    if channels == 1:
        large = large.repeat(3, axis=3)
    pitch = width * scale + GAP_PIXELS
    strip = np.full((height * scale, count * pitch - GAP_PIXELS, 3), 255, dtype=np.uint8)
    for number, image in enumerate(large):
        strip[:, number * pitch : number * pitch + width * scale] = image
    return strip


def _class_colours(count: int) -> NDArray[np.float64]:
    from matplotlib import colormaps

    if count <= 10:
        return np.asarray(colormaps["tab10"](np.arange(count)))
    if count <= MAX_LEGEND:
        return np.asarray(colormaps["tab20"](np.arange(count)))
    return np.asarray(colormaps["turbo"](np.linspace(0, 1, count)))


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    # No date and no version: equal figures are equal files.
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()
