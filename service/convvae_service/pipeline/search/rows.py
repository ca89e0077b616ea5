"""The rows of a result that a search needs: all vectors, and single rows by number or by id.

Dimensions: N = rows, R = rows that are asked for, Z = latent dimension.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convvae_service.pipeline.errors import BadUse
from convvae_service.pipeline.result import BadResult, Result, vectors

__all__ = [
    "all_vectors",
    "column_values",
    "encoder_name",
    "ids_of",
    "numbers_of",
    "vector_batches",
    "vectors_of",
]


def vector_batches(result: Result) -> Iterator[NDArray[np.float32]]:
    """Yield the vectors of the result in order, float32 (B, Z).

    Raises:
        BadResult: A vector has no finite length.
    """
    start = 0
    for batch in result.batches(["embedding"]):
        vectors_BZ = vectors(batch)
        with np.errstate(over="ignore"):
            lengths_B = np.einsum("bz,bz->b", vectors_BZ, vectors_BZ)
        bad = np.flatnonzero(~np.isfinite(lengths_B))
        if len(bad):
            raise BadResult(
                f"row {start + bad[0]} of the result has a vector that is not finite, or is too large to"
                " compare: the file is damaged, or --float16 was too small for it"
            )
        yield vectors_BZ
        start += len(batch)


def all_vectors(result: Result) -> NDArray[np.float32]:
    """Return all vectors of the result, float32 (N, Z), in memory."""
    vectors_NZ = np.empty((result.rows, int(result.metadata["convvae.latent_dim"])), np.float32)
    start = 0
    for batch_BZ in vector_batches(result):
        vectors_NZ[start : start + len(batch_BZ)] = batch_BZ
        start += len(batch_BZ)
    return vectors_NZ


def vectors_of(result: Result, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the vectors of these rows, float32 (R, Z), in the order of `rows`, which may repeat."""
    vectors_RZ = np.empty((len(rows), int(result.metadata["convvae.latent_dim"])), np.float32)
    start = 0
    for batch_BZ in vector_batches(result):
        here_R = (rows >= start) & (rows < start + len(batch_BZ))
        vectors_RZ[here_R] = batch_BZ[rows[here_R] - start]
        start += len(batch_BZ)
    return vectors_RZ


def column_values(result: Result, column: str, rows: NDArray[np.int64]) -> list[Any]:
    """Return the values of a column in these rows, in the order of `rows`, which may repeat.

    Raises:
        BadUse: There is a value that Python cannot hold.
    """
    found: dict[int, Any] = {}
    wanted = np.unique(rows)
    start = 0
    for batch in result.batches([column]):
        here = wanted[(wanted >= start) & (wanted < start + len(batch))]
        if len(here):
            values = _in_microseconds(batch.column(column).take(_arrow_integers(here - start)))
            try:
                found |= dict(zip(here.tolist(), values.to_pylist(), strict=True))
            except (ValueError, OverflowError) as error:  # a year after 9999
                raise BadUse(f"the column {column!r} has a value that Python cannot hold: {error}") from None
        start += len(batch)
    return [found[row] for row in rows.tolist()]


def _in_microseconds(values: Any) -> Any:
    """Return times and durations in nanoseconds in microseconds: Python has no finer ones."""
    import pyarrow as pa

    kind = values.type
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return values.cast(pa.timestamp("us", kind.tz), safe=False)
    if pa.types.is_duration(kind) and kind.unit == "ns":
        return values.cast(pa.duration("us"), safe=False)
    if pa.types.is_time64(kind) and kind.unit == "ns":
        return values.cast(pa.time64("us"), safe=False)
    return values


def ids_of(result: Result, rows: NDArray[np.int64]) -> list[str]:
    """Return the ids of these rows."""
    return column_values(result, "id", rows)


def numbers_of(result: Result, ids: Sequence[str]) -> NDArray[np.int64]:
    """Return the number of the first row with each of these ids, int64.

    Raises:
        BadUse: There is no such row.
    """
    wanted = dict.fromkeys(ids, -1)
    start = 0
    for batch in result.batches(["id"]):
        for number, row_id in enumerate(batch.column("id").to_pylist(), start=start):
            if wanted.get(row_id, 0) == -1:
                wanted[row_id] = number
        start += len(batch)
    for row_id, number in wanted.items():
        if number < 0:
            raise BadUse(
                f"no row of the result has the id {row_id!r}; to search for an image file, give --bundle or"
                " --target too"
            )
    return np.array([wanted[row_id] for row_id in ids], np.int64)


def _arrow_integers(values: NDArray[np.int64]) -> Any:
    import pyarrow as pa

    return pa.array(values)


def encoder_name(result: Result) -> str:
    """Return the model and version that encoded the rows, `MODEL@VERSION`."""
    return f"{result.metadata['convvae.model']}@{result.metadata.get('convvae.model_version', '?')}"
