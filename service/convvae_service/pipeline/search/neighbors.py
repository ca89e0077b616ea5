"""The nearest rows of a result to images, and a sheet that shows them.

Dimensions: K = neighbours, Q = queries, Z = latent dimension.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convvae_service.images import DEFAULT_MAX_PIXELS, BadSource, InvalidImage, decode_file, read_file
from convvae_service.pipeline.encoder import ImageEncoder
from convvae_service.pipeline.errors import BadModel
from convvae_service.pipeline.result import Result
from convvae_service.pipeline.search.nearest import Neighbors, nearest
from convvae_service.pipeline.search.pictures import picture_of, pictures_of_rows
from convvae_service.pipeline.search.rows import (
    encoder_name,
    ids_of,
    numbers_of,
    vector_batches,
    vectors_of,
)
from convvae_service.pipeline.search.sheet import Tile, picture_sheet

__all__ = ["FoundNeighbors", "find_neighbors", "neighbors_sheet"]

_LINE_TILES = 15
_NO_TILE = Tile(Image.new("RGB", (1, 1), "white"), "")


@dataclass(frozen=True, slots=True)
class FoundNeighbors:
    """The neighbours of each query: their numbers, ids and distances, the nearest first.

    Attributes:
        queries: The image files, or the ids of rows.
        images: The files as the model sees them, uint8 (H, W, C), or none for ids of rows.
        ids: The ids of the neighbours.
        found: Their numbers and distances.
    """

    queries: Sequence[str]
    images: Sequence[NDArray[np.uint8]]
    ids: Sequence[Sequence[str]]
    found: Neighbors


def find_neighbors(
    result: Result, queries: Sequence[str], count: int, encoder: ImageEncoder | None
) -> FoundNeighbors:
    """Return the nearest rows of image files, or of rows by their ids.

    A row that is a query is not among its own neighbours.

    Args:
        result: The result to search.
        queries: Paths of image files, or without an encoder ids of rows.
        count: Number of neighbours.
        encoder: Encodes the files. It must be the encoder of the result.

    Raises:
        BadModel: The encoder is another one than the result's.
        BadUse: No row has such an id.
        BadSource: A file cannot be read as an image.
    """
    images: Sequence[NDArray[np.uint8]] = []
    if encoder is None:
        own = numbers_of(result, queries)
        found = nearest(vectors_of(result, own), vector_batches(result), count + 1)
        found = _without(found, own, count)
    else:
        _check_encoder(result, encoder)
        images = [_decoded(file, encoder) for file in queries]
        found = nearest(_encoded(images, encoder), vector_batches(result), count)
    texts = ids_of(result, found.rows.reshape(-1))
    width = found.rows.shape[1]
    ids = [texts[start : start + width] for start in range(0, len(texts), width)] if width else []
    return FoundNeighbors(queries, images, ids or [[] for _ in queries], found)


def neighbors_sheet(result: Result, found: FoundNeighbors, sources: Sequence[str]) -> Image.Image:
    """Return a picture with lines for each query: its picture, and those of its neighbours, 15 a line.

    Raises:
        BadUse: The pictures cannot be found; see `pictures_of_rows`.
    """
    numbers = found.found.rows.reshape(-1)
    ids = [text for row in found.ids for text in row]
    if found.images:
        own = [picture_of(image_HWC) for image_HWC in found.images]
        others = pictures_of_rows(result, numbers, ids, sources)
    else:
        numbers = np.concatenate((numbers_of(result, found.queries), numbers))
        pictures = pictures_of_rows(result, numbers, [*found.queries, *ids], sources)
        own, others = pictures[: len(found.queries)], pictures[len(found.queries) :]
    rows = []
    remaining = iter(others)
    for query, picture, texts, distances in zip(
        found.queries, own, found.ids, found.found.distances, strict=True
    ):
        tiles = [
            Tile(next(remaining), text, f"{distance:.4g}")
            for text, distance in zip(texts, distances, strict=True)
        ]
        first = Tile(picture, query, "query")
        for start in range(0, len(tiles) or 1, _LINE_TILES):
            rows.append([[first], tiles[start : start + _LINE_TILES]])
            first = _NO_TILE
    return picture_sheet(rows, heading=f"Nearest by {encoder_name(result)}, Euclidean distance below")


def _without(found: Neighbors, own_Q: NDArray[np.int64], count: int) -> Neighbors:
    """Return the neighbours without the query's own row, which an equal row may hide."""
    width = min(count, found.rows.shape[1] - 1)
    rows, distances = [], []
    for row_K, distance_K, own in zip(found.rows, found.distances, own_Q, strict=True):
        others = np.flatnonzero(row_K != own)[:width]
        rows.append(row_K[others])
        distances.append(distance_K[others])
    return Neighbors(np.array(rows, np.int64), np.array(distances, np.float64))


def _check_encoder(result: Result, encoder: ImageEncoder) -> None:
    info, metadata = encoder.info, result.metadata
    if info.sha256 != metadata["convvae.encoder_sha256"]:
        made_by = f"{encoder_name(result)} in {metadata['convvae.precision']}"
        given = f"{info.input.model}@{info.version} in {info.precision}"
        raise BadModel(
            f"the result was encoded by {made_by}, and this is another encoder, {given}: vectors of two"
            " encoders cannot be compared"
        )


def _decoded(file: str, encoder: ImageEncoder) -> NDArray[np.uint8]:
    model_input = encoder.info.input
    try:
        return decode_file(
            read_file(file),
            shape=model_input.shape,
            resize=model_input.resize,
            max_pixels=DEFAULT_MAX_PIXELS,
        )
    except InvalidImage as error:
        of_row = "" if Path(file).exists() else " (without --bundle or --target, it is the id of a row)"
        raise BadSource(f"{file!r}: {error}{of_row}") from None


def _encoded(images: Sequence[NDArray[np.uint8]], encoder: ImageEncoder) -> NDArray[np.float32]:
    """Return the vectors of images, float32 (Q, Z)."""
    vectors = [
        encoder.encode(np.stack(images[start : start + encoder.batch_rows]), log_variance=False).mean
        for start in range(0, len(images), encoder.batch_rows)
    ]
    return np.concatenate(vectors)
