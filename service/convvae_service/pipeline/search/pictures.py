"""The pictures of rows: the column `thumbnail` of a result, or the source that it was made of."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convvae_service.bundle import ImageShape, Resize
from convvae_service.images import ModelInput, open_sources
from convvae_service.pipeline.errors import BadUse
from convvae_service.pipeline.result import BadResult, Result
from convvae_service.pipeline.search.rows import column_values

__all__ = ["THUMBNAIL", "check_pictures", "picture_of", "pictures_of_rows"]

THUMBNAIL = "thumbnail"
_BATCH_ROWS = 256


def check_pictures(result: Result, sources: Sequence[str]) -> None:
    """Check before any work that the result has thumbnails, or that there are sources.

    Raises:
        BadUse: There are neither.
    """
    if THUMBNAIL not in result.schema.names and not sources:
        raise BadUse(
            "the result has no pictures: give --source with the images that it was made of, or embed them"
            " again with --thumbnail"
        )


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
        BadResult: A thumbnail is damaged.
        BadSource: A source cannot be read.
    """
    check_pictures(result, sources)
    if not sources:
        values = column_values(result, THUMBNAIL, rows)
        return [_thumbnail(value, row_id) for value, row_id in zip(values, ids, strict=True)]
    found = _from_sources(sources, set(ids), _model_input(result))
    for row_id in ids:
        if row_id not in found:
            raise BadUse(
                f"--source has no image with the id {row_id!r}: give what the result was made of (ids of an"
                " --id-column are not found again: embed with --thumbnail)"
            )
    return [found[row_id] for row_id in ids]


def picture_of(image_HWC: NDArray[np.uint8]) -> Image.Image:
    """Return an image of one or three channels as a picture in RGB."""
    return Image.fromarray(image_HWC[..., 0] if image_HWC.shape[2] == 1 else image_HWC).convert("RGB")


def _thumbnail(value: Mapping[str, bytes] | None, row_id: str) -> Image.Image:
    try:
        return Image.open(io.BytesIO((value or {})["bytes"])).convert("RGB")
    except (OSError, SyntaxError, ValueError, KeyError, TypeError):
        raise BadResult(f"the thumbnail of the row {row_id!r} is missing or damaged: give --source") from None


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
                        found.setdefault(row_id, picture_of(image_HWC))
        finally:
            cursor.close()
    return found


def _model_input(result: Result) -> ModelInput:
    height, width, channels = map(int, result.metadata["convvae.image"].split("x"))
    shape = ImageShape(height=height, width=width, channels=channels)
    return ModelInput(result.metadata["convvae.model"], shape, Resize())
