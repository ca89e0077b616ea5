"""A source of many images: the protocols of its parts, and the batches that are read from it.

A source is a sequence of shards, such as tar files. A shard has a fixed order of rows. Its cursor gives
undecoded rows in this order, without holding the others, and can start at any row. So a run can continue
where it stopped, and its memory does not grow with the source. The rows are decoded in any thread.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from convvae_service.images.decode import DEFAULT_MAX_PIXELS
from convvae_service.images.file_decoder import FileDecoder, decode_here
from convvae_service.images.files import LeftOut
from convvae_service.images.model_input import ModelInput

__all__ = [
    "BadSource",
    "Cursor",
    "ImageBatch",
    "RejectedRow",
    "Shard",
    "Source",
    "SourceChanged",
    "SourceOptions",
    "UndecodedRows",
]


class BadSource(ValueError):
    """The source is missing, damaged or not of the model's shape. The message names the file or row."""


class SourceChanged(BadSource):
    """The source is not the one any more that the run began with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceOptions:
    """What a run asks of its sources.

    Attributes:
        max_pixels: Largest width x height of an image file.
        keep: Names of the columns that are carried along.
        where: A condition on the columns of Parquet files, or "".
        image_column: The column of images or paths in Parquet files. "" finds it by its type and name.
        id_column: The column of ids in Parquet files. "" makes ids of the file's name and the row's number.
        prefix: The beginning of ids of folders and arrays: the name of the source, if there are several.
    """

    max_pixels: int = DEFAULT_MAX_PIXELS
    keep: tuple[str, ...] = ()
    where: str = ""
    image_column: str = ""
    id_column: str = ""
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row that cannot be read: its id, the reason, and its place among the rows that were read with it."""

    id: str
    reason: str
    place: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class ImageBatch:
    """Some rows of a source.

    Attributes:
        ids: Ids of the rows that could be read.
        images: uint8, (B, H, W, C) in the model's shape, one image per id.
        rejected: Rows that could not be read.
        kept: The columns that are carried along, by name: one value per id, in an Arrow array or a list.
    """

    ids: Sequence[str]
    images: NDArray[np.uint8]
    rejected: Sequence[RejectedRow] = ()
    kept: Mapping[str, Any] = field(default_factory=dict)


class UndecodedRows(Protocol):
    """Consecutive rows of a shard, not decoded yet."""

    def __len__(self) -> int:
        """Return the number of rows, at least 1."""

    def read(self, model_input: ModelInput, decode: FileDecoder = decode_here, /) -> ImageBatch:
        """Decode the rows, in order. Rows that cannot be read are in `rejected`. Any thread may call.

        Args:
            model_input: The model's input.
            decode: Decodes the rows that are image files.

        Raises:
            BadSource: A row can be read, but is not an image for the model.
            OSError: `decode` cannot decode any more.
        """


class Cursor(Protocol):
    """A position in a shard."""

    @property
    def left_out(self) -> Mapping[str, int]:
        """Number of entries before this position that are not rows, by kind."""

    @property
    def fraction(self) -> float:
        """The part of the shard before this position, 0 to 1, by rows or bytes."""

    def take(self, count: int, /) -> UndecodedRows | None:
        """Return the next rows, at most `count`, or None at the end of the shard.

        Raises:
            BadSource: The shard is damaged, or has changed since it was opened.
        """

    def close(self) -> None:
        """Release the files. Rows that were taken before can still be read."""


class Shard(Protocol):
    """A part of a source that is opened and read on its own. Another process opens a pickled copy of it."""

    @property
    def name(self) -> str:
        """Name in messages. It contains no folder of this machine."""

    @property
    def rows(self) -> int | None:
        """Number of rows, or None if only reading tells it."""

    @property
    def num_bytes(self) -> int:
        """Size, for an estimate of the rows where their number is unknown."""

    def stamp(self) -> str:
        """Return a text that changes if the shard changes: size and time of change, or a hash of them."""

    def count(self) -> int | None:
        """Return the number of rows, if it can be found without reading the images.

        Raises:
            BadSource: The shard is damaged.
        """

    def open(self, start: int, /) -> Cursor:
        """Return a cursor at row `start`.

        Raises:
            BadSource: The shard is damaged.
        """


@dataclass(frozen=True, kw_only=True)
class Source:
    """Images in a fixed order, each with an id.

    Attributes:
        name: Name in messages and in the sink's metadata. It contains no folder of this machine.
        shards: The parts, in order.
        columns: The Arrow types of the columns that are carried along, by name.
        left_out: The entries of a folder that are not rows. Those of a tar file are known when it is read.
        image_shape: The shape of all images, where the source fixes it.
        has_files: Whether rows are image files, which must be decoded.
        paths: The files and folders of this machine that it is read from.
        where: The condition that its rows meet, or "".
    """

    name: str
    shards: Sequence[Shard]
    columns: Mapping[str, Any] = field(default_factory=dict)
    left_out: LeftOut = field(default_factory=LeftOut)
    image_shape: tuple[int, int, int] | None = None
    has_files: bool = True
    paths: tuple[Path, ...] = ()
    where: str = ""

    @property
    def rows(self) -> int | None:
        """Number of rows, or None if only reading tells it."""
        total = 0
        for shard in self.shards:
            if shard.rows is None:
                return None
            total += shard.rows
        return total

    @cached_property
    def stamps(self) -> tuple[str, ...]:
        """The stamp of each shard when this was first asked for."""
        return tuple(shard.stamp() for shard in self.shards)

    def check(self, model_input: ModelInput) -> None:
        """Raise `BadSource` if the images certainly do not fit the model. Only image files are resized."""
        if self.image_shape is not None and self.image_shape != model_input.shape.as_tuple:
            height, width, channels = self.image_shape
            raise BadSource(
                f"{self.name} has images of {height}x{width}x{channels}, model {model_input.model!r} takes"
                f" {model_input.shape}: resize the array, or give a folder of image files"
            )
