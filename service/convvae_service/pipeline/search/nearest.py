"""The nearest rows of a result to some vectors: exact, by Euclidean distance, in blocks.

Dimensions: B = rows of a block, K = neighbours, Q = queries, Z = latent dimension, H = hits.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Neighbors", "nearest"]

# A block of products of 256 queries takes 8 MiB, which stays in the processor's cache.
_BLOCK_ROWS = 8192
_BLOCK_QUERIES = 256
# Candidates beyond K: float32 products order vectors at nearly equal distances by chance.
_MARGIN = 16


@dataclass(frozen=True, slots=True)
class Neighbors:
    """The nearest rows of each query, the nearest first.

    Attributes:
        rows: Numbers of the rows in the result, int64 (Q, K).
        distances: Euclidean distances, float64 (Q, K).
    """

    rows: NDArray[np.int64]
    distances: NDArray[np.float64]


def nearest(queries_QZ: NDArray[np.float32], batches: Iterable[NDArray[np.float32]], count: int) -> Neighbors:
    """Return the `count` nearest rows of each query, or all rows if there are fewer.

    Args:
        queries_QZ: The queries, float32 (Q, Z).
        batches: The vectors of the result, float32 (B, Z), in order. One of them is held at a time.
        count: Number of neighbours, at least 1.
    """
    # Vectors far from the origin lose the digits that tell them apart in float32 products. One query that is
    # far from all others does not move the median.
    centre_Z = np.median(queries_QZ, axis=0).astype(np.float32)
    searches = [
        _Search(queries_QZ[start : start + _BLOCK_QUERIES], centre_Z, count)
        for start in range(0, len(queries_QZ), _BLOCK_QUERIES)
    ]
    # One for all: to get new memory from the system takes longer than to compute.
    scores = np.empty(_BLOCK_QUERIES * _BLOCK_ROWS, np.float32)
    first_row = 0
    for batch_BZ in batches:
        for start in range(0, len(batch_BZ), _BLOCK_ROWS):
            block_BZ = batch_BZ[start : start + _BLOCK_ROWS]
            factors_ZB = _row_factors(block_BZ, centre_Z)
            for search in searches:
                search.add(block_BZ, factors_ZB, first_row, scores)
            first_row += len(block_BZ)
    found = [search.best() for search in searches]
    return Neighbors(
        np.concatenate([each.rows for each in found]), np.concatenate([each.distances for each in found])
    )


def _row_factors(block_BZ: NDArray[np.float32], centre_Z: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the right factors of the scores: each vector from the centre, negative, over half its square."""
    factors_ZB = np.empty((block_BZ.shape[1] + 1, len(block_BZ)), np.float32)
    np.subtract(centre_Z[:, None], block_BZ.T, out=factors_ZB[:-1])
    np.einsum("zb,zb->b", factors_ZB[:-1], factors_ZB[:-1], out=factors_ZB[-1])
    factors_ZB[-1] *= 0.5
    return factors_ZB


class _Search:
    """The candidates of some queries, among the rows so far.

    The score of a row is half of its squared distance, less half of the query's own square, both from the
    centre: it has the order of the distances, and is a product of matrices.
    """

    def __init__(self, queries_QZ: NDArray[np.float32], centre_Z: NDArray[np.float32], count: int) -> None:
        self._queries_QZ = queries_QZ
        self._count = count
        self._kept = count + _MARGIN
        num_queries, latent_dim = queries_QZ.shape
        self._factors_QZ = np.ones((num_queries, latent_dim + 1), np.float32)
        self._factors_QZ[:, :-1] = queries_QZ - centre_Z
        self._limits_Q = np.full(num_queries, np.inf, np.float32)
        self._query_H = np.empty(0, np.int64)
        self._row_H = np.empty(0, np.int64)
        self._score_H = np.empty(0, np.float32)
        self._vector_HZ = np.empty((0, latent_dim), np.float32)

    def add(
        self,
        block_BZ: NDArray[np.float32],
        factors_ZB: NDArray[np.float32],
        first_row: int,
        scores: NDArray[np.float32],
    ) -> None:
        """Look at the rows of a block. `scores` is memory for their scores."""
        num_queries, num_rows = len(self._limits_Q), len(block_BZ)
        scores_QB = scores[: num_queries * num_rows].reshape(num_queries, num_rows)
        np.matmul(self._factors_QZ, factors_ZB, out=scores_QB)
        limits_Q = self._limits_Q
        if np.isinf(limits_Q).any() and num_rows > self._kept:
            # Only the nearest of a block can be among the nearest of all.
            limits_Q = np.partition(scores_QB, self._kept, axis=1)[:, self._kept]
        query_H, column_H = np.divmod(np.flatnonzero(scores_QB <= limits_Q[:, None]), num_rows)
        if not len(query_H):
            return
        self._query_H = np.concatenate((self._query_H, query_H))
        self._row_H = np.concatenate((self._row_H, first_row + column_H))
        self._score_H = np.concatenate((self._score_H, scores_QB[query_H, column_H]))
        self._vector_HZ = np.concatenate((self._vector_HZ, block_BZ[column_H]))
        self._keep_nearest()

    def _keep_nearest(self) -> None:
        order_H = np.lexsort((self._row_H, self._score_H, self._query_H))
        query_H = self._query_H[order_H]
        starts_Q = np.searchsorted(query_H, np.arange(len(self._limits_Q)))
        rank_H = np.arange(len(order_H)) - starts_Q[query_H]
        order_H = order_H[rank_H < self._kept]
        self._query_H, self._row_H = self._query_H[order_H], self._row_H[order_H]
        self._score_H, self._vector_HZ = self._score_H[order_H], self._vector_HZ[order_H]
        last_H = np.flatnonzero(rank_H[rank_H < self._kept] == self._kept - 1)
        self._limits_Q[self._query_H[last_H]] = self._score_H[last_H]

    def best(self) -> Neighbors:
        """Return the nearest candidates, by their distances in float64."""
        rows, distances = [], []
        starts = np.searchsorted(self._query_H, np.arange(len(self._limits_Q) + 1))
        for query_Z, start, end in zip(self._queries_QZ, starts[:-1], starts[1:], strict=True):
            differences = self._vector_HZ[start:end].astype(np.float64) - query_Z
            distance_H = np.sqrt(np.einsum("hz,hz->h", differences, differences))
            order = np.lexsort((self._row_H[start:end], distance_H))[: self._count]
            rows.append(self._row_H[start:end][order])
            distances.append(distance_H[order])
        return Neighbors(np.array(rows, np.int64), np.array(distances, np.float64))
