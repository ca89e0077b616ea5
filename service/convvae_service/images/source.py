"""A source of many images: the protocol, and the batches that it reads.

The rows of a source have a fixed order. They are read by index range, in any order and from several threads
at once. So a part of a source is a range of rows, and an interrupted run can continue at the row where it
stopped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from convvae_service.bundle import ImageShape, Resize
from convvae_service.images.files import LeftOut

__all__ = ["BadSource", "ImageBatch", "ModelInput", "RejectedRow", "Source"]


class BadSource(ValueError):
    """The source is missing, damaged or not of the model's shape. The message names the file or row."""


@dataclass(frozen=True, slots=True)
class ModelInput:
    """The input of a model: its name, image shape, and resizing rule for images of other sizes."""

    model: str
    shape: ImageShape
    resize: Resize


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row that cannot be read: its id and the reason."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class ImageBatch:
    """Some rows of a source.

    Attributes:
        ids: Ids of the rows that could be read.
        images: uint8, (B, H, W, C) in the model's shape, one image per id.
        rejected: Rows that could not be read.
    """

    ids: Sequence[str]
    images: NDArray[np.uint8]
    rejected: Sequence[RejectedRow] = ()


class Source(Protocol):
    """Images in a fixed order, each with an id. Safe to use from several threads."""

    @property
    def name(self) -> str:
        """Name in messages and in the sink's metadata. It contains no folder of this machine."""

    @property
    def left_out(self) -> LeftOut:
        """The entries of a folder that are not rows. Arrays have none."""

    def __len__(self) -> int:
        """Return the number of rows, at least 1."""

    def check(self, model_input: ModelInput, /) -> None:
        """Raise `BadSource` if the rows certainly do not fit the model."""

    def read(self, rows: range, model_input: ModelInput, /) -> ImageBatch:
        """Read these rows, in order. Rows that cannot be read are in `rejected`.

        Raises:
            BadSource: A row can be read, but is not an image for the model.
        """
