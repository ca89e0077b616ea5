"""Inference with a run's averaged weights, in float32: posterior means and draws, reconstructions, samples.

B = batch, C = channels, H and W = height and width, Z = latent dimension, N = all images.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from convvae_trainer.data.chunking import chunk_size, chunks
from convvae_trainer.objectives.bound import reparameterise
from convvae_trainer.step.train_state import TrainState

__all__ = [
    "PosteriorDraws",
    "batches",
    "network_batches",
    "posterior_draws",
    "posterior_means",
    "prior_means",
    "reconstructions",
    "samples",
]


@dataclass(frozen=True, slots=True)
class PosteriorDraws:
    """A batch of images with one posterior draw for each.

    Images and pixel means have shape (B, C, H, W) and are in 0..1; mean and log-variance have shape (B, Z).
    """

    images: Tensor
    mean: Tensor
    log_variance: Tensor
    pixel_mean: Tensor


def batches(images_NHWC: NDArray[np.uint8], device: torch.device, *, base: int = 32) -> Iterator[Tensor]:
    """Yield images as float32 in 0..1, of shape (B, C, H, W).

    Args:
        images_NHWC: uint8 images.
        device: The device of the batches.
        base: The networks' channels after the first halving; the more channels, the smaller the batches.
    """
    height, width, channels = images_NHWC.shape[1:]
    rows = chunk_size(height, width, channels, base=base)
    for part in chunks(len(images_NHWC), rows):
        # A copy: the array may be a file mapped into memory, which torch must not write to.
        batch = torch.from_numpy(np.array(images_NHWC[part]))
        yield batch.to(device).permute(0, 3, 1, 2).contiguous().float() / 255


def network_batches(train_state: TrainState, images_NHWC: NDArray[np.uint8]) -> Iterator[Tensor]:
    """Yield batches of a size that suits the networks, on their device."""
    return batches(images_NHWC, train_state.device, base=train_state.config.width)


@torch.no_grad()
def posterior_means(train_state: TrainState, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the posterior means of images, of shape (N, Z)."""
    with train_state.ema.swapped_in():
        means = [
            train_state.model.encoder(x_BCHW)[0].cpu() for x_BCHW in network_batches(train_state, images_NHWC)
        ]
    return torch.cat(means).numpy()


def posterior_draws(
    train_state: TrainState, images_NHWC: NDArray[np.uint8], *, seed: int
) -> Iterator[PosteriorDraws]:
    """Yield all images with one posterior draw for each, batch by batch.

    The weights are those in use: swap the averaged weights in first. Gradients are computed unless the caller
    turns them off.

    Args:
        train_state: Networks and likelihood.
        images_NHWC: uint8 images.
        seed: The seed of the draws, which do not depend on the batches.
    """
    noise = np.random.default_rng(seed)
    for x_BCHW in network_batches(train_state, images_NHWC):
        mean_BZ, log_variance_BZ = train_state.model.encoder(x_BCHW)
        noise_BZ = torch.from_numpy(noise.standard_normal(tuple(mean_BZ.shape), dtype=np.float32))
        latent_BZ = reparameterise(mean_BZ, log_variance_BZ, noise_BZ.to(train_state.device))
        pixel_mean_BCHW = train_state.likelihood.pixel_mean(train_state.model.decoder(latent_BZ))
        yield PosteriorDraws(x_BCHW, mean_BZ, log_variance_BZ, pixel_mean_BCHW)


@torch.no_grad()
def reconstructions(train_state: TrainState, images_NHWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the images decoded from the posterior means, of shape (N, H, W, C), as the service does."""
    with train_state.ema.swapped_in():
        decoded = []
        for x_BCHW in network_batches(train_state, images_NHWC):
            output_BCHW = train_state.model.decoder(train_state.model.encoder(x_BCHW)[0])
            decoded.append(_to_bytes(train_state.likelihood.pixel_mean(output_BCHW)))
    return np.concatenate(decoded)


def samples(train_state: TrainState, count: int, *, seed: int) -> NDArray[np.uint8]:
    """Return images decoded from draws from the prior, of shape (N, H, W, C)."""
    return np.concatenate([_to_bytes(mean_BCHW) for mean_BCHW in prior_means(train_state, count, seed=seed)])


@torch.no_grad()
def prior_means(train_state: TrainState, count: int, *, seed: int) -> Iterator[Tensor]:
    """Yield the pixel means of `count` draws from the prior, of shape (B, C, H, W)."""
    noise = np.random.default_rng(seed)
    rows = chunk_size(*train_state.shape, base=train_state.config.width)
    for part in chunks(count, rows):
        shape = (part.stop - part.start, train_state.config.latent_dim)
        latent_BZ = torch.from_numpy(noise.standard_normal(shape, dtype=np.float32)).to(train_state.device)
        with train_state.ema.swapped_in():
            mean_BCHW = train_state.likelihood.pixel_mean(train_state.model.decoder(latent_BZ))
        yield mean_BCHW


def _to_bytes(mean_BCHW: Tensor) -> NDArray[np.uint8]:
    # Rounded as in the decoder's graph.
    bytes_BHWC: NDArray[np.uint8] = (
        (mean_BCHW * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()
    )
    return bytes_BHWC
