"""The pictures of a bundle: reconstructions of test images, and samples, as PNG by file name."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from convvae_service.bundle import Role
from convvae_trainer.data.dataset import Dataset
from convvae_trainer.data.image_grid import grid, pairs, png
from convvae_trainer.data.selection import varied

__all__ = ["bundle_pictures"]

NUM_IMAGES = 32
COLUMNS = 8
SAMPLE_SEED = 0


def bundle_pictures(
    modules: Mapping[Role, nn.Module], dataset: Dataset, *, latent_dim: int
) -> dict[str, bytes]:
    """Return the pictures of a model.

    Args:
        modules: The encoder and decoder of the graphs, on the CPU.
        dataset: The run's data; test images of as many classes as possible are shown.
        latent_dim: The number of values in a latent vector.
    """
    images = dataset.test[varied(len(dataset.test), dataset.test_labels, NUM_IMAGES)]
    mean_NZ = modules["encoder"](torch.from_numpy(images))[0]
    prior_NZ = np.random.default_rng(SAMPLE_SEED).standard_normal((NUM_IMAGES, latent_dim), dtype=np.float32)
    decoder = modules["decoder"]
    reconstructions: NDArray[np.uint8] = decoder(mean_NZ)[0].numpy()
    samples: NDArray[np.uint8] = decoder(torch.from_numpy(prior_NZ))[0].numpy()
    side = min(dataset.image.height, dataset.image.width)
    return {
        "reconstructions.png": png(pairs(images, reconstructions, columns=COLUMNS), tile_side=side),
        "samples.png": png(grid(samples, columns=COLUMNS), tile_side=side),
    }
