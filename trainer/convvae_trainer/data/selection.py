"""Which images of a set stand for it: sets are often sorted by class, so that the first are all of one.

N = images.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["drawn", "lacking", "varied"]


def drawn(count: int, limit: int, *, seed: int = 0) -> NDArray[np.intp]:
    """Return the rows of `limit` of `count` images, ascending: all, or some drawn by `seed`."""
    return np.sort(np.random.default_rng(seed).permutation(count)[:limit])


def varied(count: int, labels_N: NDArray[np.int64] | None, limit: int, *, seed: int = 0) -> NDArray[np.intp]:
    """Return the rows of `limit` of `count` images to look at, ascending, drawn by `seed`.

    With labels they are of as many classes as they can be, and of each class of equally many, as far as there
    are images.
    """
    order = np.random.default_rng(seed).permutation(count)
    if labels_N is not None:
        # How many of its class come before an image: first one of each class, then a second one, ...
        rank_N = np.empty(count, np.intp)
        for label in np.unique(labels_N):
            of_class = labels_N[order] == label
            rank_N[of_class] = np.arange(of_class.sum())
        order = order[np.argsort(rank_N, kind="stable")]
    return np.sort(order[:limit])


def lacking(labels_N: NDArray[np.int64] | None, limit: int) -> str:
    """Return "of 1 of the 10 classes" where the first `limit` images lack a class, else ""."""
    if labels_N is None:
        return ""
    num_there, num_classes = len(np.unique(labels_N[:limit])), len(np.unique(labels_N))
    return "" if num_there == num_classes else f"of {num_there} of the {num_classes} classes"
