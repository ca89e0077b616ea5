"""The cells of a quick, a usual and a full run."""

from bench.serving.cell import Cell
from bench.serving.ghz import has_ghz

__all__ = ["DEFAULT", "FULL", "PEERS", "QUICK", "left_out"]

_QUICK = ("Empty 1 x16", "Encode 1 x1", "Encode 1 x16", "Encode 64 x4", "Encode 256 x4", "Encode 1024 x2")
_DEFAULT = (
    *_QUICK,
    "Encode 1 x16 by ghz",
    "Encode 1 x16 by Client",
    "Encode 1 x16 by AsyncClient",
    "EncodeFiles 64 x4",
    "Encode 1 x4",
    "Encode 1 x64",
    "Encode 16 x16",
    "Decode 1 x16",
    "Decode 64 x4",
    "Sample 1 x16",
    "Sample 64 x4",
    "Reconstruct 1 x16",
    "Reconstruct 64 x4",
    "Encode 1 x16 64x64x3",
    "Encode 64 x4 64x64x3",
    "Decode 64 x4 64x64x3",
)
_FULL = (
    f"{method} {rows} x{callers} {graph}"
    for graph in ("28x28x1", "64x64x3")
    for method in ("Encode", "Decode", "Sample", "Reconstruct")
    for rows in (1, 16, 64, 256, 1024)
    for callers in (1, 4, 16, 64)
    # Calls that would wait in the queue alone: the server admits 8,192 rows.
    if rows * callers <= 4096
)
QUICK = [Cell.of(text) for text in _QUICK]
DEFAULT = [Cell.of(text) for text in _DEFAULT]
FULL = list(dict.fromkeys([*DEFAULT, *map(Cell.of, _FULL)]))
PEERS = [Cell.of(text) for text in ("Encode 1 x16", "Encode 64 x4", "Encode 256 x4", "Encode 1024 x2")]


def left_out(cell: Cell) -> str:
    """Return why a cell cannot be measured here; empty if it can."""
    if cell.via == "ghz" and not has_ghz():
        return "ghz is not in .tools: run `make tools`"
    return ""
