"""A source of many images: the protocol, and what it reads and returns.

Rows have a fixed order and are read by their index range, from several threads at once and in any order. So
a part of a source is a range of its rows, and a run that stopped can go on at the row where it stopped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from convvae_service.bundle import ImageShape, Resize

__all__ = ["BadSource", "ImageBatch", "ModelInput", "Rejected", "Source"]


class BadSource(ValueError):
    """The source is missing, damaged or not of the model's shape; the message names the file or row."""


@dataclass(frozen=True, slots=True)
class ModelInput:
    """What the model takes, and how a picture of another size becomes it."""

    model: str
    shape: ImageShape
    resize: Resize


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that cannot be read, by its id, and why."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class ImageBatch:
    """Rows of a source: `images` is uint8 (B, H, W, C) of the model's shape, one image for each of `ids`."""

    ids: Sequence[str]
    images: NDArray[np.uint8]
    rejected: Sequence[Rejected] = ()


class Source(Protocol):
    """Images in a fixed order, each with an id. Safe to call from several threads."""

    @property
    def name(self) -> str:
        """What messages and the sink's metadata call it: no folder of this machine."""

    def __len__(self) -> int:
        """Rows, 1 or above."""

    def check(self, model_input: ModelInput, /) -> None:
        """Raise `BadSource` when it is certain that the rows do not fit the model."""

    def read(self, rows: range, model_input: ModelInput, /) -> ImageBatch:
        """Return these rows, in order; those that cannot be read are in `rejected` instead.

        Raises:
            BadSource: A row can be read and is no image for the model.
        """
