"""A source of the image files in a folder, at any depth."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convvae_service.images.decode import decode_file
from convvae_service.images.files import image_files
from convvae_service.images.header import InvalidImage
from convvae_service.images.source import BadSource, ImageBatch, ModelInput, RejectedRow

__all__ = ["FolderSource"]


class FolderSource:
    """The JPEG, PNG and WebP files in a folder, sorted. The id of a file is its path relative to the folder.

    Names that start with a dot are skipped, and links to folders are not followed.

    Raises:
        BadSource: The folder has no images, or a folder in it cannot be listed.
    """

    def __init__(self, folder: Path) -> None:
        self.name = folder.resolve().name
        self._folder = str(folder)
        try:
            self._ids = image_files(folder)
        except OSError as error:
            raise BadSource(f"{error.filename} cannot be listed: {error.strerror}") from None
        if not self._ids:
            raise BadSource(f"no images in {str(folder)!r}: it must contain JPEG, PNG or WebP files")

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
            except InvalidImage as error:
                rejected.append(RejectedRow(file_id.encode(errors="replace").decode(), str(error)))
            else:
                ids.append(file_id)
        return ImageBatch(ids=ids, images=images[: len(ids)], rejected=rejected)

    def _decode(self, file_id: str, model_input: ModelInput) -> NDArray[np.uint8]:
        # Python represents bytes that are not UTF-8 as lone surrogates. A string column cannot store them.
        if not file_id.isascii() and any("\ud800" <= letter <= "\udfff" for letter in file_id):
            raise InvalidImage("its name is not UTF-8: rename it")
        try:
            with open(f"{self._folder}/{file_id}", "rb") as file:  # noqa: PTH123 - a Path costs more than open
                data = file.read()
        except OSError as error:
            raise InvalidImage(f"cannot be read: {error.strerror}") from None
        return decode_file(data, shape=model_input.shape, resize=model_input.resize)
