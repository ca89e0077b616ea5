"""Where images come from: one protocol, and how a path becomes a source.

Rows have a fixed order and are read by their index range, from several threads at once and in any order. So
a part of a source is a range of its rows, and a run that stopped can go on at the row where it stopped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from convvae_service.array_file import BadArray, is_array_file, open_array
from convvae_service.manifest import ImageShape, Resize
from convvae_service.pipeline.errors import BadSource

__all__ = ["Batch", "ModelInput", "Rejected", "Source", "open_source"]


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
class Batch:
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

    def read(self, rows: range, model_input: ModelInput, /) -> Batch:
        """Return these rows, in order; those that cannot be read are in `rejected` instead.

        Raises:
            BadSource: A row can be read and is no image for the model.
        """


def open_source(path: Path) -> Source:
    """Return the source at `path`: a folder of image files, an .npy or .npz array, or an idx file.

    Raises:
        BadSource: There is none, it is of another kind, damaged, or empty.
    """
    # Here, because these modules import the protocol's types from this one.
    from convvae_service.pipeline.array_source import ArraySource
    from convvae_service.pipeline.image_folder import ImageFolder

    if path.is_dir():
        return ImageFolder(path)
    if not path.exists():
        raise BadSource(f"source {str(path)!r} does not exist")
    if not is_array_file(path):
        raise BadSource(
            f"{path.name} is no source: give a folder of images, an .npy or .npz file, or an idx file"
            " (.idx, or named like train-images-idx3-ubyte, perhaps .gz)"
        )
    try:
        array = open_array(path)
    except BadArray as error:
        raise BadSource(str(error)) from None
    return ArraySource(path.name, array)
