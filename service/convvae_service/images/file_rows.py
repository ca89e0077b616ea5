"""Rows that are encoded image files, wherever their bytes come from."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from convvae_service.images.decode import decode_file
from convvae_service.images.header import InvalidImage, TooManyPixels
from convvae_service.images.source import ImageBatch, ModelInput, RejectedRow
from convvae_service.printable import printable

__all__ = ["FileRows"]

# Threads that decode small files at the same time hand Python's lock to each other at every file, which costs
# more than the decoding. One at a time is faster, while others run the model or read.
_SMALL_FILES = threading.Lock()
_SMALL_BYTES = 4 << 10
# Contents that are read before they are decoded.
_CHUNK_BYTES = 256 << 10


@dataclass(frozen=True, slots=True)
class FileRows:
    """Image files as rows; see `UndecodedRows`.

    Attributes:
        ids: Ids of the rows.
        content: Returns the bytes of the row at an index, or raises `InvalidImage`.
        max_pixels: Largest width x height of a file.
        kept: The columns that are carried along, one value per id.
    """

    ids: Sequence[str]
    content: Callable[[int], bytes]
    max_pixels: int
    kept: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, model_input: ModelInput) -> ImageBatch:
        """Decode the files; see `UndecodedRows`."""
        images = np.empty((len(self.ids), *model_input.shape.as_tuple), np.uint8)
        rules = {"shape": model_input.shape, "resize": model_input.resize, "max_pixels": self.max_pixels}
        are_texts = "".join(self.ids).isascii()
        good: list[int] = []
        rejected = []
        for start, contents in self._chunks(are_texts):
            with _SMALL_FILES if _are_small(contents) else nullcontext():
                for index, data in enumerate(contents, start):
                    try:
                        if isinstance(data, InvalidImage):
                            raise data
                        images[len(good)] = decode_file(data, **rules)  # type: ignore[arg-type]
                    except TooManyPixels as error:
                        reason = f"{error}: --max-pixels raises it"
                        rejected.append(RejectedRow(printable(self.ids[index]), reason, index))
                    except InvalidImage as error:
                        rejected.append(RejectedRow(printable(self.ids[index]), str(error), index))
                    else:
                        good.append(index)
        if not rejected:
            return ImageBatch(self.ids, images, kept=self.kept)
        kept = {name: _taken(values, good) for name, values in self.kept.items()}
        return ImageBatch([self.ids[index] for index in good], images[: len(good)], rejected, kept)

    def _chunks(self, are_texts: bool) -> "Iterator[tuple[int, list[bytes | InvalidImage]]]":
        """Yield the contents of some files at a time, or why there are none, with the index of the first."""
        contents: list[bytes | InvalidImage] = []
        start = num_bytes = 0
        for index, row_id in enumerate(self.ids):
            try:
                if not are_texts:
                    _check_text(row_id)
                data = self.content(index)
            except InvalidImage as error:
                contents.append(error)
            else:
                contents.append(data)
                num_bytes += len(data)
            if num_bytes >= _CHUNK_BYTES or index == len(self.ids) - 1:
                yield start, contents
                contents, start, num_bytes = [], index + 1, 0


def _are_small(contents: "list[bytes | InvalidImage]") -> bool:
    sizes = [len(data) for data in contents if isinstance(data, bytes)]
    return sum(sizes) <= len(sizes) * _SMALL_BYTES


def _check_text(row_id: str) -> None:
    # Python represents bytes that are not UTF-8 as lone surrogates. A string column cannot store them.
    if any("\ud800" <= letter <= "\udfff" for letter in row_id):
        raise InvalidImage("its name is not UTF-8: rename it")


def _taken(values: Any, indices: list[int]) -> Any:
    """Return some of the values of a column, which is an Arrow array or a list."""
    return values.take(indices) if hasattr(values, "take") else [values[index] for index in indices]
