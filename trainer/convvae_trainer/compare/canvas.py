"""The canvas of the report's pictures: matplotlib figures in one style, saved as PNG."""

import io

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

__all__ = ["DPI", "INK", "PALE", "new_figure", "style_axes", "to_png", "write_text"]

DPI = 160
INK, PALE, LINE = "#1f2328", "#6a737d", "#d0d7de"


def new_figure(width: float, height: float) -> Figure:
    """Return an empty white figure; sides are in pixels."""
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def style_axes(axes: Axes) -> None:
    """Give axes the colours of the report."""
    axes.tick_params(labelsize=8, colors=PALE)
    for spine in axes.spines.values():
        spine.set_edgecolor(LINE)


def write_text(
    figure: Figure, x: float, y: float, text: str, *, colour: str, size: float, align: str = "left"
) -> None:
    """Write a line at a point, given in pixels from the top left corner."""
    width, height = figure.get_size_inches() * DPI
    # parse_math: a $ would start a formula.
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


def to_png(figure: Figure) -> bytes:
    """Return the figure as PNG bytes; equal figures give equal bytes."""
    buffer = io.BytesIO()
    # The version of matplotlib, which it writes by default, is left out.
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()
