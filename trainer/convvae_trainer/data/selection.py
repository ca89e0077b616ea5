"""Selections of images. Data sets are often sorted by class, so the first images may all be of one class.

N = images.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["drawn", "lacking", "varied"]


def drawn(count: int, limit: int, *, seed: int = 0) -> NDArray[np.intp]:
    """Return the sorted rows of at most `limit` of `count` images, drawn by `seed`."""
    return np.sort(np.random.default_rng(seed).permutation(count)[:limit])


def varied(count: int, labels_N: NDArray[np.int64] | None, limit: int, *, seed: int = 0) -> NDArray[np.intp]:
    """Return the sorted rows of at most `limit` of `count` images to show, drawn by `seed`.

    With labels, the rows have as many classes as possible, and equally many images of each where possible.
    """
    order = np.random.default_rng(seed).permutation(count)
    if labels_N is not None:
        # The rank of an image within its class: first all images of rank 0, then those of rank 1, and so on.
        rank_N = np.empty(count, np.intp)
        for label in np.unique(labels_N):
            of_class = labels_N[order] == label
            rank_N[of_class] = np.arange(of_class.sum())
        order = order[np.argsort(rank_N, kind="stable")]
    return np.sort(order[:limit])


def lacking(labels_N: NDArray[np.int64] | None, limit: int) -> str:
    """Return for example "of 1 of the 10 classes" if the first `limit` images lack a class, else ""."""
    if labels_N is None:
        return ""
    num_there, num_classes = len(np.unique(labels_N[:limit])), len(np.unique(labels_N))
    return "" if num_there == num_classes else f"of {num_there} of the {num_classes} classes"
