"""Rows of images with a label, as the report shows them below each other."""

import math
import textwrap
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["LABEL_CHARACTERS", "ImageRow"]

LABEL_CHARACTERS = 24
# A note is set in smaller letters than a label.
NOTE_WIDTH = 0.85


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageRow:
    """A row of images, uint8 of shape (N, H, W, C), with a label and a note on its left."""

    label: str
    note: str = ""
    images: NDArray[np.uint8]

    @property
    def label_lines(self) -> list[str]:
        """The label, wrapped."""
        return textwrap.wrap(self.label, LABEL_CHARACTERS)

    @property
    def num_lines(self) -> int:
        """The number of lines of text."""
        return len(self.label_lines) + bool(self.note)

    @property
    def text_characters(self) -> int:
        """The width of the text, in characters of a label."""
        return max(math.ceil(NOTE_WIDTH * len(self.note)), *map(len, self.label_lines), 0)
