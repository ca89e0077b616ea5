"""Paths through the latent space, decoded: traversals of one dimension, and interpolations between images.

N = images, Z = latent dimension.
"""

import numpy as np
from numpy.typing import NDArray

from convvae_trainer.compare.bundle_model import BundleModel
from convvae_trainer.compare.image_row import ImageRow

__all__ = ["INTERPOLATION", "TRAVERSAL", "interpolations", "traversals"]

NUM_DIMENSIONS = 6
TRAVERSAL = np.linspace(-3, 3, 7)
NUM_PAIRS = 4
INTERPOLATION = np.linspace(0, 1, 8)


def traversals(
    model: BundleModel, mean_NZ: NDArray[np.float32], rate_Z: NDArray[np.float64], *, start: int
) -> list[ImageRow]:
    """Move one latent dimension at a time from -3 to 3, and keep the others as they are.

    The codes of an autoencoder have no unit. There the dimension moves by -3 to 3 standard deviations of the
    codes around their mean.

    Args:
        model: The model that decodes.
        mean_NZ: Posterior means of the test images.
        rate_Z: The mean rate of each dimension, in nats; empty for an autoencoder.
        start: The row of the image whose posterior mean is the start.

    Returns:
        A row for each of the dimensions with the highest rate; for an autoencoder, with the highest
        standard deviation.
    """
    has_rate = len(rate_Z) > 0
    deviation_Z = mean_NZ.std(axis=0)
    order = np.argsort(-(rate_Z if has_rate else deviation_Z), kind="stable")[:NUM_DIMENSIONS]
    rows = []
    for dimension in order:
        latents = np.repeat(mean_NZ[start : start + 1], len(TRAVERSAL), axis=0)
        if has_rate:
            latents[:, dimension] = TRAVERSAL
            note = f"{rate_Z[dimension]:.2f} nats"
        else:
            latents[:, dimension] = mean_NZ[:, dimension].mean() + TRAVERSAL * deviation_Z[dimension]
            note = f"deviation {deviation_Z[dimension]:.2g}"
        rows.append(ImageRow(label=f"z{dimension}", note=note, images=model.decode(latents)))
    return rows


def interpolations(
    model: BundleModel, mean_NZ: NDArray[np.float32], images: NDArray[np.uint8]
) -> list[ImageRow]:
    """Decode straight lines between the posterior means of pairs of images; the inputs are at both ends.

    Args:
        model: The model that decodes.
        mean_NZ: Posterior means of the images.
        images: The images: the first and second are a pair, the third and fourth, and so on.
    """
    rows = []
    weight = INTERPOLATION[:, None].astype(np.float32)
    for first in range(0, min(len(images) - 1, 2 * NUM_PAIRS), 2):
        line = (1 - weight) * mean_NZ[first] + weight * mean_NZ[first + 1]
        start, end = images[first : first + 1], images[first + 1 : first + 2]
        shown = np.concatenate([start, model.decode(line), end])
        rows.append(ImageRow(label=f"pair {first // 2 + 1}", images=shown))
    return rows
