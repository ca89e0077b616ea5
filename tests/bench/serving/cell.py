"""A cell of the report: a call of one kind and size, made by so many callers at once."""

import re
from dataclasses import dataclass

__all__ = ["EMPTY", "FILES", "METHODS", "Cell"]

EMPTY = "Empty"  # ListModels: a call without rows
FILES = "EncodeFiles"  # Encode of JPEG files
METHODS = ("Encode", "Decode", "Sample", "Reconstruct", EMPTY, FILES)
_TEXT = re.compile(r"(\w+) (\d+) x(\d+)(?: (\d+x\d+x\d+))?(?: by (\w+))?")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A call of one kind and size, and how many callers make it, each when its last one is answered.

    Attributes:
        method: One of `METHODS`.
        rows: Rows of a call; 1 for `EMPTY`, so that figures a row are figures a call.
        callers: Callers at once, each on a connection of its own.
        graph: Reference graphs, as HEIGHTxWIDTHxCHANNELS.
        via: `bare` for connections of their own that only send and receive; `ghz`, a Go program; `Client` or
            `AsyncClient` of this project with `coalesce`. The last three share one connection.
    """

    method: str
    rows: int = 1
    callers: int = 1
    graph: str = "28x28x1"
    via: str = "bare"

    @classmethod
    def of(cls, text: str) -> "Cell":
        """Return the cell of a text: `Encode 64 x4`, `Decode 16 x1 64x64x3` or `Encode 1 x16 by Client`.

        Raises:
            ValueError: The text is not of this form, or names another method.
        """
        found = _TEXT.fullmatch(text)
        if found is None or found[1] not in METHODS:
            raise ValueError(f"{text!r} is no cell: write METHOD ROWS xCALLERS, METHOD one of {METHODS}")
        return cls(
            method=found[1],
            rows=int(found[2]),
            callers=int(found[3]),
            graph=found[4] or cls.graph,
            via=found[5] or cls.via,
        )

    def __str__(self) -> str:
        """Return the text that `of` reads."""
        graph = "" if self.graph == Cell.graph else f" {self.graph}"
        via = "" if self.via == Cell.via else f" by {self.via}"
        return f"{self.method} {self.rows} x{self.callers}{graph}{via}"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        height, width, channels = map(int, self.graph.split("x"))
        return height, width, channels
