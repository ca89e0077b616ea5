"""The pictures of rows: the column `thumbnail` of a result, or the source that it was made of."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convvae_service.bundle import ImageShape, Resize
from convvae_service.images import ModelInput, open_sources
from convvae_service.pipeline.errors import BadUse
from convvae_service.pipeline.result import Result
from convvae_service.pipeline.search.rows import column_values

__all__ = ["THUMBNAIL", "pictures_of_files", "pictures_of_rows"]

THUMBNAIL = "thumbnail"
_BATCH_ROWS = 256


def pictures_of_rows(
    result: Result, rows: NDArray[np.int64], ids: Sequence[str], sources: Sequence[str]
) -> list[Image.Image]:
    """Return the picture of each of these rows, in RGB.

    Args:
        result: The result.
        rows: Numbers of the rows.
        ids: Their ids.
        sources: The sources that the result was made of; without any, the result's own thumbnails are taken.

    Raises:
        BadUse: There are neither thumbnails nor sources, or a row is not in the sources.
        BadSource: A source cannot be read.
    """
    if THUMBNAIL in result.schema.names and not sources:
        files = [value["bytes"] for value in column_values(result, THUMBNAIL, rows)]
        return [Image.open(io.BytesIO(file)).convert("RGB") for file in files]
    if not sources:
        raise BadUse(
            "the result has no pictures: give --source with the images that it was made of, or embed them"
            " again with --thumbnail"
        )
    found = _from_sources(sources, set(ids), _model_input(result))
    for row_id in ids:
        if row_id not in found:
            raise BadUse(f"--source has no image with the id {row_id!r}: give what the result was made of")
    return [found[row_id] for row_id in ids]


def pictures_of_files(files: Sequence[Path]) -> list[Image.Image]:
    """Return the pictures of image files, in RGB, small."""
    pictures = []
    for file in files:
        with Image.open(file) as picture:
            picture.thumbnail((256, 256))
            pictures.append(picture.convert("RGB"))
    return pictures


def _from_sources(
    sources: Sequence[str], wanted: set[str], model_input: ModelInput
) -> Mapping[str, Image.Image]:
    found: dict[str, Image.Image] = {}
    for shard in open_sources(sources).shards:
        cursor = shard.open(0)
        try:
            while len(found) < len(wanted) and (rows := cursor.take(_BATCH_ROWS)) is not None:
                batch = rows.read(model_input)
                for row_id, image_HWC in zip(batch.ids, batch.images, strict=True):
                    if row_id in wanted:
                        found[row_id] = _picture(image_HWC)
        finally:
            cursor.close()
    return found


def _picture(image_HWC: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(image_HWC[..., 0] if image_HWC.shape[2] == 1 else image_HWC).convert("RGB")


def _model_input(result: Result) -> ModelInput:
    height, width, channels = map(int, result.metadata["convvae.image"].split("x"))
    shape = ImageShape(height=height, width=width, channels=channels)
    return ModelInput(result.metadata["convvae.model"], shape, Resize())
