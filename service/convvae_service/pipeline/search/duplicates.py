"""Pairs of rows that are nearly equal, as a table and as a sheet of pictures.

Dimensions: N = rows, P = pairs, Z = latent dimension.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convvae_service.pipeline.errors import BadUse
from convvae_service.pipeline.parquet_sink import import_pyarrow
from convvae_service.pipeline.result import Result
from convvae_service.pipeline.search.crowding import crowding_ratios
from convvae_service.pipeline.search.near_pairs import NearPairs, near_pairs, suggested_threshold
from convvae_service.pipeline.search.out_files import write_whole
from convvae_service.pipeline.search.pictures import pictures_of_rows
from convvae_service.pipeline.search.rows import all_vectors, encoder_name, ids_of
from convvae_service.pipeline.search.sheet import Tile, picture_sheet

__all__ = ["Duplicates", "duplicates_among", "duplicates_sheet", "find_duplicates", "write_pairs"]

# Measured on CIFAR-10 (docs/measurements.md): of pairs below this, all that were looked at were one picture.
SUGGESTED_RATIO = 0.5
_SHEET_PAIRS = 30
_ROW_PAIRS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Duplicates:
    """The pairs that were found, and the limits that they are within.

    Attributes:
        pairs: The pairs, the nearest first.
        ratios: The distance of each pair over those of its rows to their tenth neighbours, float64 (P,).
        threshold: Largest distance of a pair.
        max_ratio: Largest ratio of a pair; infinite if the distance alone decides.
        is_suggested: Whether the threshold was suggested.
    """

    pairs: NearPairs
    ratios: NDArray[np.float64]
    threshold: float
    max_ratio: float
    is_suggested: bool


def find_duplicates(
    result: Result, threshold: float | None, max_ratio: float | None, *, max_pairs: int
) -> Duplicates:
    """Return the pairs of a result that are nearly equal; see `duplicates_among`.

    Raises:
        BadUse: There are more than `max_pairs` pairs, or the result has fewer than two rows.
    """
    if result.rows < 2:
        raise BadUse(f"duplicates need at least 2 rows, and the result has {result.rows}")
    return duplicates_among(all_vectors(result), threshold, max_ratio, max_pairs=max_pairs)


def duplicates_among(
    vectors_NZ: NDArray[np.float32], threshold: float | None, max_ratio: float | None, *, max_pairs: int
) -> Duplicates:
    """Return the pairs that are nearer than a threshold, and much nearer than their further neighbours.

    Args:
        vectors_NZ: The vectors, float32 (N, Z), at least two.
        threshold: Largest distance of a pair. None: one is suggested.
        max_ratio: Largest ratio of a pair. None: 0.5, or no limit with a given threshold.
        max_pairs: More pairs within the threshold than this are an error.

    Raises:
        BadUse: There are more than `max_pairs` pairs.
    """
    if max_ratio is None:
        max_ratio = SUGGESTED_RATIO if threshold is None else np.inf
    suggested = suggested_threshold(vectors_NZ)
    used = suggested if threshold is None else threshold
    near = near_pairs(vectors_NZ, used, max_pairs=max_pairs)
    ratios_P = crowding_ratios(vectors_NZ, near, floor=suggested / 2)
    kept_P = ratios_P <= max_ratio
    return Duplicates(
        pairs=NearPairs(near.first[kept_P], near.second[kept_P], near.distances[kept_P]),
        ratios=ratios_P[kept_P],
        threshold=used,
        max_ratio=max_ratio,
        is_suggested=threshold is None,
    )


def write_pairs(result: Result, found: Duplicates, out: Path) -> None:
    """Write pairs as a Parquet file: ids, row numbers, `distance` and `ratio`, the nearest first.

    Raises:
        RunFailed: The file cannot be written.
    """
    pairs = found.pairs
    arrow: Any = import_pyarrow()
    columns = {
        "id": arrow.array(ids_of(result, pairs.first), arrow.string()),
        "other_id": arrow.array(ids_of(result, pairs.second), arrow.string()),
        "row": arrow.array(pairs.first),
        "other_row": arrow.array(pairs.second),
        "distance": arrow.array(pairs.distances.astype(np.float32)),
        "ratio": arrow.array(found.ratios.astype(np.float32)),
    }
    of_rows = ("convvae.rows", "convvae.skipped")
    kept = {key: value for key, value in result.metadata.items() if key.startswith("convvae.")}
    kept = {key: value for key, value in kept.items() if key not in of_rows}
    limits = {"convvae.threshold": f"{found.threshold:.9g}", "convvae.max_ratio": f"{found.max_ratio:.9g}"}
    table = arrow.table(columns).replace_schema_metadata({**kept, **limits})

    def write(path: Path) -> None:
        with path.open("wb") as stream:
            arrow.parquet.write_table(table, stream)

    write_whole(out, write)


def duplicates_sheet(result: Result, pairs: NearPairs, sources: Sequence[str]) -> Image.Image:
    """Return a picture of the 30 nearest pairs, three in each row. Without pairs, it says so.

    Raises:
        BadUse: The pictures cannot be found; see `pictures_of_rows`.
    """
    first, second = pairs.first[:_SHEET_PAIRS], pairs.second[:_SHEET_PAIRS]
    numbers = np.stack((first, second), axis=1).reshape(-1)
    ids = ids_of(result, numbers)
    pictures = pictures_of_rows(result, numbers, ids, sources)
    notes = [f"{pairs.distances[place // 2]:.4g}" if place % 2 else "" for place in range(len(ids))]
    tiles = [Tile(*each) for each in zip(pictures, ids, notes, strict=True)]
    shown_pairs = [tiles[start : start + 2] for start in range(0, len(tiles), 2)]
    rows = [shown_pairs[start : start + _ROW_PAIRS] for start in range(0, len(shown_pairs), _ROW_PAIRS)]
    shown = f"The {len(shown_pairs)} nearest of {len(pairs.first):,} pairs" if rows else "No pairs"
    return picture_sheet(rows, heading=f"{shown}, by {encoder_name(result)}, Euclidean distance")
