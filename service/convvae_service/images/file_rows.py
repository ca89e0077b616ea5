"""Rows that are encoded image files, wherever their bytes come from."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from convvae_service.images.file_decoder import FileDecoder, decode_here
from convvae_service.images.header import InvalidImage, TooManyPixels
from convvae_service.images.model_input import ModelInput
from convvae_service.images.source import ImageBatch, RejectedRow
from convvae_service.printable import printable

__all__ = ["FileRows"]

# Contents that are read before they are decoded: a batch of small files.
_CHUNK_BYTES = 2 << 20


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

    def read(self, model_input: ModelInput, decode: FileDecoder = decode_here) -> ImageBatch:
        """Decode the files; see `UndecodedRows`."""
        images = np.empty((len(self.ids), *model_input.shape.as_tuple), np.uint8)
        errors: dict[int, InvalidImage] = {}
        num_images = 0
        for indices, files in self._chunks(errors):
            pixels = images[num_images : num_images + len(files)]
            failed = decode(files, pixels, model_input, self.max_pixels)
            if failed:
                errors |= {indices[place]: error for place, error in failed.items()}
                good = [place for place in range(len(files)) if place not in failed]
                pixels[: len(good)] = pixels[good]
            num_images += len(files) - len(failed)
        if not errors:
            return ImageBatch(self.ids, images, kept=self.kept)
        good = [index for index in range(len(self.ids)) if index not in errors]
        return ImageBatch(
            ids=[self.ids[index] for index in good],
            images=images[:num_images],
            rejected=[self._rejected(index, error) for index, error in sorted(errors.items())],
            kept={name: _taken(values, good) for name, values in self.kept.items()},
        )

    def _chunks(self, errors: dict[int, InvalidImage]) -> Iterator[tuple[list[int], list[bytes]]]:
        """Yield the indices and contents of some rows at a time; those without contents go to `errors`."""
        are_texts = "".join(self.ids).isascii()
        indices: list[int] = []
        files: list[bytes] = []
        num_bytes = 0
        for index, row_id in enumerate(self.ids):
            try:
                if not are_texts:
                    _check_text(row_id)
                data = self.content(index)
            except InvalidImage as error:
                errors[index] = error
                continue
            indices.append(index)
            files.append(data)
            num_bytes += len(data)
            if num_bytes >= _CHUNK_BYTES:
                yield indices, files
                indices, files, num_bytes = [], [], 0
        if files:
            yield indices, files

    def _rejected(self, index: int, error: InvalidImage) -> RejectedRow:
        hint = ": --max-pixels raises it" if isinstance(error, TooManyPixels) else ""
        return RejectedRow(printable(self.ids[index]), f"{error}{hint}", index)


def _check_text(row_id: str) -> None:
    # Python represents bytes that are not UTF-8 as lone surrogates. A string column cannot store them.
    if any("\ud800" <= letter <= "\udfff" for letter in row_id):
        raise InvalidImage("its name is not UTF-8: rename it")


def _taken(values: Any, indices: list[int]) -> Any:
    """Return some of the values of a column, which is an Arrow array or a list."""
    if hasattr(values, "take"):
        return values.take(np.array(indices, np.int64))  # an empty list would have no type
    return [values[index] for index in indices]
