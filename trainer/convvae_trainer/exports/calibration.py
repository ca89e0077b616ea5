"""The inputs that give the activations of 8-bit graphs their ranges: training images, and latents.

N = images, H and W = height and width, C = channels, Z = latent dimension.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convvae_service.bundle import Role
from convvae_trainer.exports.graph_pair import GraphPair

__all__ = ["Calibration", "calibration"]

# Batches of inputs by the role of the graph that takes them.
Calibration = Mapping[Role, Sequence[NDArray[Any]]]


def calibration(pair: GraphPair, images_NHWC: NDArray[np.uint8], *, seed: int) -> Calibration:
    """Return the inputs of both graphs.

    The decoder is given what callers give it: posterior means, posterior draws, and draws from the prior. It
    is given the codes alone where there is no posterior.

    Args:
        pair: The fp32 graphs.
        images_NHWC: Training images.
        seed: The seed of the draws.
    """
    mean_NZ, log_variance_NZ = pair.encode(images_NHWC)
    latents = [mean_NZ]
    if log_variance_NZ is not None:
        noise = np.random.default_rng(seed)
        noise_NZ = noise.standard_normal(mean_NZ.shape, dtype=np.float32)
        latents.append(mean_NZ + np.exp(0.5 * log_variance_NZ) * noise_NZ)
        latents.append(noise.standard_normal(mean_NZ.shape, dtype=np.float32))
    latent_NZ = np.concatenate(latents)
    return {
        "encoder": [images_NHWC[chunk] for chunk in pair.chunks(len(images_NHWC))],
        "decoder": [latent_NZ[chunk] for chunk in pair.chunks(len(latent_NZ))],
    }
