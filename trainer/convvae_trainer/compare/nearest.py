"""The nearest training images of draws from the prior: whether a model draws what it has seen.

N = images, D = values of an image.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convvae_trainer.compare.small_images import small_images
from convvae_trainer.data.selection import drawn

__all__ = ["CLOSE_SHARE", "NUM_SEARCHED", "NearestImages", "PriorDraws"]

# Draws, and held-out images, whose nearest training images are searched.
NUM_SEARCHED = 256
# A draw is called close if it is closer to a training image than all but this share of held-out images.
CLOSE_SHARE = 0.05
CHUNK_ROWS = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class PriorDraws:
    """Draws from a model's prior, uint8 of shape (N, H, W, C), each with its nearest training image.

    `distance` is the median distance of the draws to their nearest training images, `held_out_distance` that
    of test images: root mean square differences of a pixel in 0..1. `close_share` is the share of draws that
    are closer than all but `CLOSE_SHARE` of the test images, 0 to 1.
    """

    images: NDArray[np.uint8]
    nearest: NDArray[np.uint8]
    distance: float
    held_out_distance: float
    close_share: float
    searched: int

    def to_json_object(self) -> dict[str, Any]:
        """Return the figures, without the images."""
        names = ("distance", "held_out_distance", "close_share", "searched")
        return {name: getattr(self, name) for name in names}


class NearestImages:
    """Training images that are searched for the nearest one, in pixels; large images are searched reduced.

    Args:
        train_NHWC: The training images, uint8.
        test_NHWC: The test images; the distances of at most `NUM_SEARCHED` of them are the scale.
    """

    def __init__(self, train_NHWC: NDArray[np.uint8], test_NHWC: NDArray[np.uint8]) -> None:
        self._train_NHWC = train_NHWC
        self._small_ND = _rows(small_images(train_NHWC))
        held_out = test_NHWC[drawn(len(test_NHWC), NUM_SEARCHED)]
        self._held_out_N = self._search(held_out)[1]

    def of(self, draws_NHWC: NDArray[np.uint8], *, shown: int) -> PriorDraws:
        """Return draws with their nearest training images; the first `shown` are kept as images."""
        rows_N, distance_N = self._search(draws_NHWC)
        limit = np.quantile(self._held_out_N, CLOSE_SHARE)
        return PriorDraws(
            images=draws_NHWC[:shown],
            nearest=self._train_NHWC[rows_N[:shown]],
            distance=float(np.median(distance_N)),
            held_out_distance=float(np.median(self._held_out_N)),
            close_share=float((distance_N < limit).mean()),
            searched=len(draws_NHWC),
        )

    def _search(self, images_NHWC: NDArray[np.uint8]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Return the row of each image's nearest training image, and the distance."""
        query_ND = _rows(small_images(images_NHWC)).astype(np.float32)
        best_N = np.full(len(query_ND), np.inf, np.float32)
        rows_N = np.zeros(len(query_ND), np.intp)
        for low in range(0, len(self._small_ND), CHUNK_ROWS):
            train_MD = self._small_ND[low : low + CHUNK_ROWS].astype(np.float32)
            # |a - b|^2 without |a|^2, which is equal for all training images.
            squares_NM = np.einsum("md,md->m", train_MD, train_MD) - 2 * query_ND @ train_MD.T
            nearest_N = squares_NM.argmin(axis=1)
            found_N = squares_NM[np.arange(len(query_ND)), nearest_N]
            is_nearer_N = found_N < best_N
            best_N[is_nearer_N], rows_N[is_nearer_N] = found_N[is_nearer_N], low + nearest_N[is_nearer_N]
        # Anew from the pixels: the differences of large squares have lost digits.
        apart_ND = query_ND - self._small_ND[rows_N]
        return rows_N, np.sqrt(np.square(apart_ND, dtype=np.float64).mean(axis=1)) / 255


def _rows(images_NHWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return images_NHWC.reshape(len(images_NHWC), -1)
