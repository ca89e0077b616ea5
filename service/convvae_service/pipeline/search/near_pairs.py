"""Pairs of rows that are nearer than a threshold: exact, by Euclidean distance.

Rows are sorted along the direction in which they differ most. Two rows cannot be nearer than their difference
along it, so most pairs are never compared.

Dimensions: B = rows of a block, C = rows that are compared with them, N = rows, P = pairs, Z = latent
dimension.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convvae_service.pipeline.errors import BadUse
from convvae_service.pipeline.search.nearest import nearest

__all__ = ["TENTH", "NearPairs", "near_pairs", "suggested_threshold"]

_BLOCK_ROWS = 512
_BLOCK_OTHERS = 4096
_MAX_SAMPLE = 1000
# Duplicates are far nearer than rows are in general: two and a half deviations, in the logarithm.
_DEVIATIONS = 2.5
# The deviation of a normal distribution, of its median absolute deviation.
_NORMAL_MAD = 1.4826
_MAX_PART = 0.5
# An image and nine copies of it are found still: their tenth neighbours are other images.
TENTH = 10
# In k dimensions, the tenth neighbour is 2^(1/k) times as far as the fifth. To this power, that ratio is the
# part of the tenth distance that the nearest of ten rows without copies undercuts in a tenth of all cases.
_COPY_POWER = 6.4


@dataclass(frozen=True, slots=True)
class NearPairs:
    """Pairs of rows, the nearest first.

    Attributes:
        first: Number of the earlier row of each pair, int64 (P,).
        second: Number of the later row, int64 (P,).
        distances: Euclidean distances, float64 (P,).
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    distances: NDArray[np.float64]


def near_pairs(vectors_NZ: NDArray[np.float32], threshold: float, *, max_pairs: int) -> NearPairs:
    """Return all pairs at a distance of at most `threshold`.

    Args:
        vectors_NZ: The vectors, float32 (N, Z).
        threshold: Largest distance of a pair, at least 0.
        max_pairs: More pairs than this are an error, because they would fill the memory.

    Raises:
        BadUse: There are more than `max_pairs` pairs.
    """
    centred_NZ = vectors_NZ - np.median(vectors_NZ, axis=0).astype(np.float32)
    _, axes = np.linalg.eigh(centred_NZ.T.astype(np.float64) @ centred_NZ)
    position_N = vectors_NZ.astype(np.float64) @ axes[:, -1]
    order_N = np.argsort(position_N, kind="stable")
    position_N, sorted_NZ = position_N[order_N], np.ascontiguousarray(centred_NZ[order_N])
    square_N = np.einsum("nz,nz->n", sorted_NZ, sorted_NZ)
    # Float32 products are off by so much of the squares of their rows. What passes is computed in float64.
    square_N *= 1 - 16 * np.finfo(np.float32).eps
    found: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]] = []
    num_pairs = 0
    scores = np.empty(_BLOCK_ROWS * _BLOCK_OTHERS, np.float32)
    for start in range(0, len(sorted_NZ), _BLOCK_ROWS):
        end = min(start + _BLOCK_ROWS, len(sorted_NZ))
        last = int(np.searchsorted(position_N, position_N[end - 1] + threshold, side="right"))
        for other in range(start, last, _BLOCK_OTHERS):
            stop = min(other + _BLOCK_OTHERS, last)
            scores_BC = scores[: (end - start) * (stop - other)].reshape(end - start, stop - other)
            np.matmul(-2 * sorted_NZ[start:end], sorted_NZ[other:stop].T, out=scores_BC)
            scores_BC += square_N[start:end, None]
            scores_BC += square_N[None, other:stop]
            row, column = np.divmod(np.flatnonzero(scores_BC <= threshold**2), stop - other)
            row, column = row + start, column + other
            row, column = row[row < column], column[row < column]
            pair = np.sort(np.stack((order_N[row], order_N[column])), axis=0)
            differences = vectors_NZ[pair[0]].astype(np.float64) - vectors_NZ[pair[1]]
            distance = np.sqrt(np.einsum("pz,pz->p", differences, differences))
            near = distance <= threshold
            pair = pair[:, near]
            found.append((pair[0], pair[1], distance[near]))
            num_pairs += len(pair[0])
            if num_pairs > max_pairs:
                lower = "a lower --threshold, or " if threshold else ""
                where = f"at most {threshold:g} apart" if threshold else "of equal vectors"
                raise BadUse(
                    f"there are more than {max_pairs:,} pairs {where}: give {lower}a higher --max-pairs"
                )
    first, second, distances = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.lexsort((second, first, distances))
    return NearPairs(first[order], second[order], distances[order])


def suggested_threshold(vectors_NZ: NDArray[np.float32], *, seed: int = 0) -> float:
    """Return a distance that is far below the usual distance of a row to its nearest neighbour.

    It is two and a half robust standard deviations below the median, in the logarithm, of the distances of up
    to 1,000 rows, drawn by `seed`, to their nearest rows that are no copies, and at most half of that median.
    A row counts as a copy if it is much nearer than the tenth neighbour. So a threshold is found, too, for a
    data set with a copy of every image.
    """
    count = len(vectors_NZ)
    rows = np.sort(np.random.default_rng(seed).permutation(count)[:_MAX_SAMPLE])
    # The row itself is its nearest.
    distances = nearest(vectors_NZ[rows], [vectors_NZ], min(TENTH + 1, count)).distances
    distances = distances[distances[:, -1] > 0]
    if not len(distances):
        return 0.0
    last = distances.shape[1] - 1
    near_part = float(np.median(distances[:, last // 2] / distances[:, last]))
    copy_part = min(_MAX_PART, near_part**_COPY_POWER)
    are_others = distances > copy_part * distances[:, -1:]
    logs = np.log(np.where(are_others, distances, np.inf).min(axis=1))
    middle = np.median(logs)
    deviation = _NORMAL_MAD * np.median(np.abs(logs - middle))
    return float(np.exp(middle) * min(_MAX_PART, np.exp(-_DEVIATIONS * deviation)))
