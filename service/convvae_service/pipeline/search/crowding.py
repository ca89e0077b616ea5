"""The distances of pairs, relative to how crowded the rows around them are.

Plain images, such as a bird before the sky, have many others almost as near as a copy would be. The copy of
an image is far nearer than its other neighbours are. The distance of a pair over those to further neighbours
tells the two apart, like the local scaling of Zelnik-Manor and Perona 2004.

Dimensions: N = rows, P = pairs, R = rows in pairs, Z = latent dimension.
"""

import numpy as np
from numpy.typing import NDArray

from convvae_service.pipeline.search.near_pairs import TENTH, NearPairs
from convvae_service.pipeline.search.nearest import nearest

__all__ = ["crowding_ratios"]

# A ratio stays finite beside ten equal rows.
_MIN_DISTANCE = float(np.finfo(np.float32).tiny)


def crowding_ratios(vectors_NZ: NDArray[np.float32], pairs: NearPairs, floor: float) -> NDArray[np.float64]:
    """Return the distance of each pair over those of its rows to their tenth neighbours, float64 (P,).

    The divisor is the geometric mean for the two rows. Equal rows have 0. With fewer than eleven rows, the
    last neighbour is the tenth.

    Args:
        vectors_NZ: The vectors, float32 (N, Z), at least two.
        pairs: Pairs of their rows.
        floor: A smaller distance to a tenth neighbour counts as this one, so that more than nine copies of an
            image do not pass for a crowd.
    """
    ratios_P = np.zeros(len(pairs.first))
    if not len(ratios_P):
        return ratios_P
    rows_R, places = np.unique(np.concatenate((pairs.first, pairs.second)), return_inverse=True)
    # The row itself is its nearest.
    found = nearest(vectors_NZ[rows_R], [vectors_NZ], min(TENTH + 1, len(vectors_NZ)))
    scale_R = np.maximum(found.distances[:, -1], max(floor, _MIN_DISTANCE))
    first_P, second_P = scale_R[places].reshape(2, -1)
    apart = pairs.distances > 0
    ratios_P[apart] = pairs.distances[apart] / np.sqrt(first_P * second_P)[apart]
    return ratios_P
