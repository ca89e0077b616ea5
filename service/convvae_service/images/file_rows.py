"""Rows that are encoded image files, wherever their bytes come from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from convvae_service.images.decode import decode_file
from convvae_service.images.header import InvalidImage, TooManyPixels
from convvae_service.images.source import ImageBatch, ModelInput, RejectedRow
from convvae_service.printable import printable

__all__ = ["FileRows"]


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
        for index, row_id in enumerate(self.ids):
            try:
                if not are_texts:
                    _check_text(row_id)
                images[len(good)] = decode_file(self.content(index), **rules)  # type: ignore[arg-type]
            except TooManyPixels as error:
                rejected.append(RejectedRow(printable(row_id), f"{error}: --max-pixels raises it", index))
            except InvalidImage as error:
                rejected.append(RejectedRow(printable(row_id), str(error), index))
            else:
                good.append(index)
        if not rejected:
            return ImageBatch(self.ids, images, kept=self.kept)
        kept = {name: _taken(values, good) for name, values in self.kept.items()}
        return ImageBatch([self.ids[index] for index in good], images[: len(good)], rejected, kept)


def _check_text(row_id: str) -> None:
    # Python represents bytes that are not UTF-8 as lone surrogates. A string column cannot store them.
    if any("\ud800" <= letter <= "\udfff" for letter in row_id):
        raise InvalidImage("its name is not UTF-8: rename it")


def _taken(values: Any, indices: list[int]) -> Any:
    """Return some of the values of a column, which is an Arrow array or a list."""
    return values.take(indices) if hasattr(values, "take") else [values[index] for index in indices]
