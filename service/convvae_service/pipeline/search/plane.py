"""Vectors in two dimensions, to be drawn: t-SNE, or the two main axes.

Dimensions: N = rows, Z = latent dimension.
"""

import numpy as np
from numpy.typing import NDArray

from convvae_service.pipeline.errors import BadUse, MissingExtra

__all__ = ["METHODS", "on_plane"]

METHODS = ("tsne", "pca")
_MIN_ROWS = 3
_PERPLEXITY = 30.0
_START_DEVIATION = 1e-4


def on_plane(vectors_NZ: NDArray[np.float32], method: str, *, seed: int) -> NDArray[np.float64]:
    """Return a place for each vector, float64 (N, 2), within 0 to 1, in which near vectors are near.

    Args:
        vectors_NZ: The vectors, at least 3.
        method: `tsne` keeps neighbourhoods (van der Maaten and Hinton 2008, with the tree of van der Maaten
            2014). `pca` keeps the two directions of the largest variance, and distances along them.
        seed: Seeds t-SNE. The same seed gives the same map on the same machine.

    Raises:
        BadUse: There are too few rows.
        MissingExtra: scikit-learn, which has t-SNE, is not installed.
    """
    if len(vectors_NZ) < _MIN_ROWS:
        raise BadUse(f"a map needs at least {_MIN_ROWS} rows, and there are {len(vectors_NZ)}")
    places_N2 = _main_axes(vectors_NZ) if method == "pca" else _tsne(vectors_NZ, seed)
    low_2, high_2 = places_N2.min(axis=0), places_N2.max(axis=0)
    # One scale for both axes: distances on the map mean the same in every direction.
    extent = float((high_2 - low_2).max()) or 1.0
    centred: NDArray[np.float64] = (places_N2 - (low_2 + high_2) / 2) / extent + 0.5
    return centred


def _main_axes(vectors_NZ: NDArray[np.float32]) -> NDArray[np.float64]:
    centred_NZ = vectors_NZ.astype(np.float64) - vectors_NZ.mean(axis=0, dtype=np.float64)
    _, axes = np.linalg.eigh(centred_NZ.T @ centred_NZ)
    # The sign of an axis is arbitrary: its largest part is positive.
    main_Z2 = axes[:, ::-1][:, :2]
    if main_Z2.shape[1] == 1:
        main_Z2 = np.pad(main_Z2, ((0, 0), (0, 1)))
    signs = np.sign(main_Z2[np.abs(main_Z2).argmax(axis=0), range(2)])
    found: NDArray[np.float64] = centred_NZ @ (main_Z2 * np.where(signs == 0, 1, signs))
    return found


def _tsne(vectors_NZ: NDArray[np.float32], seed: int) -> NDArray[np.float64]:
    try:
        from sklearn.manifold import TSNE
    except ModuleNotFoundError:
        raise MissingExtra("scikit-learn", "pipeline") from None
    perplexity = min(_PERPLEXITY, (len(vectors_NZ) - 1) / 3)
    # From the main axes, the large structure of the map means something (Kobak and Berens 2019).
    start_N2 = _main_axes(vectors_NZ)
    start_N2 *= _START_DEVIATION / (start_N2[:, 0].std() or 1.0)
    tsne = TSNE(init=start_N2, perplexity=perplexity, random_state=seed, learning_rate="auto")
    return np.asarray(tsne.fit_transform(vectors_NZ), np.float64)
