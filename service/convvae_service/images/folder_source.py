"""A source of the image files in a folder, at any depth."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convvae_service.images.decode import DEFAULT_MAX_PIXELS, decode_file
from convvae_service.images.files import image_files, read_file
from convvae_service.images.header import InvalidImage, TooManyPixels
from convvae_service.images.source import BadSource, ImageBatch, ModelInput, RejectedRow
from convvae_service.printable import printable

__all__ = ["FolderSource"]


class FolderSource:
    """The JPEG, PNG and WebP files in a folder, sorted. The id of a file is its path relative to the folder.

    `image_files` says what is left out.

    Args:
        folder: The folder.
        max_pixels: Largest width x height of a file.

    Raises:
        BadSource: The folder has no images, or a folder in it cannot be listed.
    """

    def __init__(self, folder: Path, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> None:
        self.name = printable(folder.resolve().name)
        self._folder = str(folder)
        self._max_pixels = max_pixels
        try:
            self._ids, self.left_out = image_files(folder)
        except OSError as error:
            raise BadSource(f"{printable(str(error.filename))} cannot be listed: {error.strerror}") from None
        if not self._ids:
            text = f"no images in {printable(str(folder))!r}: it must contain JPEG, PNG or WebP files"
            raise BadSource(f"{text}; {self.left_out}" if self.left_out.counts else text)

    def __len__(self) -> int:
        return len(self._ids)

    def check(self, model_input: ModelInput) -> None:
        """Do nothing: files of any size are resized by the model's rule."""

    def read(self, rows: range, model_input: ModelInput) -> ImageBatch:
        """Decode these files; see `Source`."""
        images = np.empty((len(rows), *model_input.shape.as_tuple), np.uint8)
        ids: list[str] = []
        rejected = []
        for file_id in self._ids[rows.start : rows.stop]:
            try:
                images[len(ids)] = self._decode(file_id, model_input)
            except TooManyPixels as error:
                rejected.append(RejectedRow(printable(file_id), f"{error}: --max-pixels raises it"))
            except InvalidImage as error:
                rejected.append(RejectedRow(printable(file_id), str(error)))
            else:
                ids.append(file_id)
        return ImageBatch(ids=ids, images=images[: len(ids)], rejected=rejected)

    def _decode(self, file_id: str, model_input: ModelInput) -> NDArray[np.uint8]:
        # Python represents bytes that are not UTF-8 as lone surrogates. A string column cannot store them.
        if not file_id.isascii() and any("\ud800" <= letter <= "\udfff" for letter in file_id):
            raise InvalidImage("its name is not UTF-8: rename it")
        data = read_file(f"{self._folder}/{file_id}")
        return decode_file(
            data, shape=model_input.shape, resize=model_input.resize, max_pixels=self._max_pixels
        )
