"""Pairs of rows that are nearly equal, as a table and as a sheet of pictures.

Dimensions: N = rows, Z = latent dimension.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from convvae_service.pipeline.errors import BadUse, RunFailed
from convvae_service.pipeline.parquet_sink import import_pyarrow
from convvae_service.pipeline.result import Result
from convvae_service.pipeline.search.near_pairs import NearPairs, near_pairs, suggested_threshold
from convvae_service.pipeline.search.pictures import pictures_of_rows
from convvae_service.pipeline.search.rows import all_vectors, encoder_name, ids_of
from convvae_service.pipeline.search.sheet import Tile, picture_sheet

__all__ = ["duplicates_sheet", "find_duplicates", "write_pairs"]

_SHEET_PAIRS = 30
_ROW_PAIRS = 3


def find_duplicates(
    result: Result, threshold: float | None, *, max_pairs: int
) -> tuple[NearPairs, float, bool]:
    """Return the pairs that are nearer than a threshold, the threshold, and whether it was suggested.

    Raises:
        BadUse: There are more than `max_pairs` pairs, or the result has one row.
    """
    if result.rows < 2:
        raise BadUse("the result has one row: duplicates need two")
    vectors_NZ = all_vectors(result)
    used = suggested_threshold(vectors_NZ) if threshold is None else threshold
    return near_pairs(vectors_NZ, used, max_pairs=max_pairs), used, threshold is None


def write_pairs(result: Result, pairs: NearPairs, threshold: float, out: Path) -> None:
    """Write pairs as a Parquet file: `id`, `other_id`, `row`, `other_row`, `distance`, the nearest first.

    Raises:
        RunFailed: The file cannot be written.
    """
    arrow: Any = import_pyarrow()
    columns = {
        "id": arrow.array(ids_of(result, pairs.first), arrow.string()),
        "other_id": arrow.array(ids_of(result, pairs.second), arrow.string()),
        "row": arrow.array(pairs.first),
        "other_row": arrow.array(pairs.second),
        "distance": arrow.array(pairs.distances.astype(np.float32)),
    }
    kept = {key: value for key, value in result.metadata.items() if key.startswith("convvae.")}
    table = arrow.table(columns).replace_schema_metadata({**kept, "convvae.threshold": f"{threshold:.9g}"})
    try:
        with out.open("wb") as stream:
            arrow.parquet.write_table(table, stream)
    except OSError as error:
        raise RunFailed(f"{str(out)!r} cannot be written: {error.strerror or error}") from None


def duplicates_sheet(result: Result, pairs: NearPairs, sources: Sequence[str]) -> Image.Image:
    """Return a picture of the 30 nearest pairs, three in each row.

    Raises:
        BadUse: The pictures cannot be found; see `pictures_of_rows`.
    """
    first, second = pairs.first[:_SHEET_PAIRS], pairs.second[:_SHEET_PAIRS]
    numbers = np.stack((first, second), axis=1).reshape(-1)
    ids = ids_of(result, numbers)
    pictures = pictures_of_rows(result, numbers, ids, sources)
    notes = [f"{pairs.distances[place // 2]:.4f}" if place % 2 else "" for place in range(len(ids))]
    tiles = [Tile(*each) for each in zip(pictures, ids, notes, strict=True)]
    shown_pairs = [tiles[start : start + 2] for start in range(0, len(tiles), 2)]
    rows = [shown_pairs[start : start + _ROW_PAIRS] for start in range(0, len(shown_pairs), _ROW_PAIRS)]
    shown = f"the {len(shown_pairs)} nearest of {len(pairs.first)} pairs"
    return picture_sheet(rows, heading=f"{shown}, by {encoder_name(result)}, Euclidean distance")
