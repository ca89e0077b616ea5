"""The plot of a run: processor time beyond bare ONNX Runtime by cell and server."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

__all__ = ["plot"]

LEAST_US = 0.5


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Write a PNG with a bar for each cell and server: median, and quartiles as a line."""
    cells: Mapping[str, Mapping[str, Mapping[str, Any]]] = result["cells"]
    servers = list(dict.fromkeys(name for each in cells.values() for name in each))
    height = 0.8 / len(servers)
    figure, axes = plt.subplots(figsize=(9, 1.2 + 0.2 * sum(map(len, cells.values()))), layout="constrained")
    for index, server in enumerate(servers):
        bars = [(row, each[server]["beyond_us"]) for row, each in enumerate(cells.values()) if server in each]
        if not bars:
            continue
        middles = [max(LEAST_US, spread["median"]) for _, spread in bars]
        # On a logarithmic axis a bar at or below zero would have no end.
        low = [max(LEAST_US, spread["q1"]) for _, spread in bars]
        high = [max(LEAST_US, spread["q3"]) for _, spread in bars]
        axes.barh(
            [row - 0.4 + (index + 0.5) * height for row, _ in bars],
            middles,
            height,
            label=server,
            xerr=[
                [middle - value for middle, value in zip(middles, low, strict=True)],
                [value - middle for middle, value in zip(middles, high, strict=True)],
            ],
            error_kw={"linewidth": 1},
        )
        for (row, spread), middle in zip(bars, high, strict=True):
            text = f" {spread['median']:.0f}" if abs(spread["median"]) >= 10 else f" {spread['median']:.1f}"
            axes.text(middle, row - 0.4 + (index + 0.5) * height, text, va="center", fontsize=7)
    axes.set_yticks(range(len(cells)), list(cells), fontsize=8)
    axes.set_ylim(len(cells) - 0.4, -0.6)
    axes.set_xscale("log")
    axes.margins(x=0.1)
    axes.set_xlabel("processor time of the server beyond bare ONNX Runtime, µs for a row (logarithmic)")
    axes.set_title(f"{result['figure']}\n{result['hardware']}, {result['date'][:10]}", fontsize=9)
    axes.grid(axis="x", alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=130)
    plt.close(figure)
