"""A source of images in one array, usually in a file.

Dimensions: N = images, B = rows of a batch, H, W, C = height, width and channels of an image.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from convvae_service.images.arrays import BadArray, as_images, as_uint8, open_array, open_labels
from convvae_service.images.file_decoder import FileDecoder, decode_here
from convvae_service.images.location import Location
from convvae_service.images.model_input import ModelInput
from convvae_service.images.open_file import OpenFile
from convvae_service.images.packages import import_package
from convvae_service.images.source import (
    BadSource,
    ImageBatch,
    Source,
    SourceChanged,
    SourceOptions,
)

__all__ = ["ArrayShard", "open_array_source"]

LABEL = "label"


class _Stored(NamedTuple):
    """The images, (N, H, W, C), and the array of the file if they are mapped from it."""

    images: NDArray[Any]
    mapped: "np.memmap[Any, Any] | None"


class ArrayShard:
    """An array as a shard; see `Shard`. The id of a row is its index.

    An array that is mapped from a file is read with system calls instead: a file that shrinks is an error
    then, and not the end of the process.

    Args:
        name: Name of the array in messages.
        array: (N, H, W) or (N, H, W, C) with C 1 or 3; uint8, bool, or floating-point in 0..1.
        labels: (N,), or None.
        prefix: The beginning of each id.
        location: The file that the array is from, or None.

    Raises:
        BadSource: The array has another shape or type, or no rows.
    """

    def __init__(
        self,
        name: str,
        array: NDArray[Any],
        *,
        labels: NDArray[Any] | None = None,
        prefix: str = "",
        location: Location | None = None,
    ) -> None:
        self.name = name
        self._labels = labels
        self._prefix = prefix
        self._location = location
        self._stored = self._checked(array)
        self.num_bytes = int(self._stored.images.nbytes)

    def _checked(self, array: NDArray[Any]) -> "_Stored":
        try:
            array_NHWC = as_images(array, name=self.name)
        except BadArray as error:
            raise BadSource(str(error)) from None
        # The copy of a remote file is mapped: nobody shortens it.
        is_file = self._location is None or self._location.path is not None
        mapped = is_file and isinstance(array, np.memmap)
        return _Stored(array_NHWC, array if mapped else None)  # type: ignore[arg-type]

    @cached_property
    def _stored(self) -> "_Stored":
        """The array. Another process reads it from the file, when it needs it."""
        assert self._location is not None
        return self._checked(_read(self._location, with_labels=False)[0])

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the pixels of a file: another process opens the file itself."""
        in_file = {"_stored"} if self._location is not None else set()
        return {name: value for name, value in self.__dict__.items() if name not in in_file}

    @property
    def rows(self) -> int:
        """Number of images."""
        return len(self._stored.images)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the images."""
        height, width, channels = self._stored.images.shape[1:]
        return height, width, channels

    def stamp(self) -> str:
        """Return the state of the file; an array in memory has none."""
        return "" if self._location is None else str(self._location.state())

    def count(self) -> int:
        """Return the number of images."""
        return self.rows

    def open(self, start: int) -> "_ArrayCursor":
        """Return a cursor at a row; see `Shard`."""
        return _ArrayCursor(self, start)

    def open_file(self) -> OpenFile | None:
        """Return the file if it is read with system calls."""
        return None if self._stored.mapped is None or self._location is None else self._location.open_copy()

    def values(self, file: OpenFile | None, rows: range) -> NDArray[Any]:
        """Return the stored values of some rows, (B, H, W, C)."""
        images, mapped = self._stored
        if file is None or mapped is None:
            return images[rows.start : rows.stop]
        shape_BHWC = (len(rows), *images.shape[1:])
        row_values = math.prod(shape_BHWC[1:])
        if mapped.flags.c_contiguous:
            values = np.empty(len(rows) * row_values, mapped.dtype)
            self._fill(file, values, rows.start * row_values)
            return values.reshape(shape_BHWC)
        # In Fortran's order, the file has the values of all images at one pixel, then those at the next.
        values = np.empty((row_values, len(rows)), mapped.dtype)
        for pixel, values_B in enumerate(values):
            self._fill(file, values_B, pixel * len(images) + rows.start)
        return values.reshape(*mapped.shape[:0:-1], len(rows)).T.reshape(shape_BHWC)

    def _fill(self, file: OpenFile, values: NDArray[Any], first: int) -> None:
        """Fill a contiguous array with the file's values from one on."""
        assert self._stored.mapped is not None
        position = self._stored.mapped.offset + first * values.itemsize
        left = values.view(np.uint8).data
        # A call reads at most 2 GiB.
        while left and (count := os.preadv(file.handle, [left], position)):
            left, position = left[count:], position + count
        if left:
            raise SourceChanged(f"{self.name} is shorter now than when it was opened")

    def read(self, file: OpenFile | None, rows: range) -> ImageBatch:
        """Return some rows as uint8."""
        try:
            pixels = as_uint8(self.values(file, rows), name=self.name, first=rows.start)
        except BadArray as error:
            raise BadSource(str(error)) from None
        kept = {} if self._labels is None else {LABEL: self._labels[rows.start : rows.stop].tolist()}
        ids = [f"{self._prefix}{row}" for row in rows]
        return ImageBatch(ids=ids, images=pixels, kept=kept)


@dataclass(frozen=True, slots=True)
class _ArrayRows:
    shard: ArrayShard
    file: OpenFile | None
    rows: range

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, model_input: ModelInput, decode: FileDecoder = decode_here) -> ImageBatch:
        """Return the rows as uint8; see `UndecodedRows`."""
        del model_input, decode
        return self.shard.read(self.file, self.rows)


class _ArrayCursor:
    left_out: Mapping[str, int] = {}

    def __init__(self, shard: ArrayShard, start: int) -> None:
        self._shard = shard
        self._next = start
        self._file = shard.open_file()

    @property
    def fraction(self) -> float:
        """The part of the rows that was taken."""
        return self._next / self._shard.rows

    def take(self, count: int) -> _ArrayRows | None:
        """Return the next rows; see `Cursor`."""
        rows = range(self._next, min(self._next + count, self._shard.rows))
        self._next = rows.stop
        return _ArrayRows(self._shard, self._file, rows) if rows else None

    def close(self) -> None:
        """Do nothing: the file is closed when its last rows are released."""


def open_array_source(location: Location, options: SourceOptions) -> Source:
    """Open an .npy, .npz or idx file as a source. The column `label` is the array `labels` of an .npz file.

    Raises:
        BadSource: The file is damaged or holds no images, or the labels are not one number or text per image.
    """
    name = location.name
    array, labels = _read(location, with_labels=bool(options.keep))
    columns: dict[str, Any] = {}
    if options.keep:
        unknown = [column for column in options.keep if column != LABEL or labels is None]
        if unknown or labels is None:
            has = "no columns" if labels is None else LABEL
            raise BadSource(f"{name} has no column {unknown[0]!r} to keep: it has {has}")
        columns = {LABEL: _label_type(labels, len(array), name)}
    shard = ArrayShard(name, array, labels=labels, prefix=options.prefix, location=location)
    return Source(name=name, shards=[shard], columns=columns, image_shape=shard.image_shape, has_files=False)


def _read(location: Location, *, with_labels: bool) -> tuple[NDArray[Any], NDArray[Any] | None]:
    try:
        with location.local_path() as path:
            return open_array(path), open_labels(path) if with_labels else None
    except BadArray as error:
        raise BadSource(str(error)) from None


def _label_type(labels: NDArray[Any], rows: int, name: str) -> Any:
    arrow = import_package("pyarrow")
    types = {"i": arrow.int64(), "u": arrow.int64(), "b": arrow.bool_(), "f": arrow.float64()}
    kind = labels.dtype.kind
    if labels.shape != (rows,) or kind not in (*types, "U"):
        raise BadSource(
            f"{name} has labels of shape {labels.shape} and type {labels.dtype}: there must be one number or"
            f" text for each of the {rows:,} images"
        )
    if labels.dtype == np.uint64:
        return arrow.uint64()
    try:
        "".join(labels.tolist() if kind == "U" else []).encode()
    except UnicodeEncodeError:
        raise BadSource(f"{name} has a label that is no text: it cannot be kept") from None
    return types.get(kind, arrow.string())
