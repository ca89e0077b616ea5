"""What a run's averaged weights make of images, in float32: posterior means, reconstructions, draws.

B = batch, C = channels, H and W = height and width, Z = latent dimension, N = all images.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from convvae_trainer.data.chunking import chunk_size, chunks
from convvae_trainer.step.train_state import TrainState

__all__ = ["batches", "batches_of", "posterior_means", "prior_means", "reconstructions", "samples"]


def batches(images_NHWC: NDArray[np.uint8], device: torch.device, *, base: int = 32) -> Iterator[Tensor]:
    """Yield images as float32 in 0..1, of shape (B, C, H, W).

    Args:
        images_NHWC: uint8 images.
        device: Where to.
        base: Channels after the first halving of the networks that take them; the wider, the fewer at once.
    """
    height, width, channels = images_NHWC.shape[1:]
    rows = chunk_size(height, width, channels, base=base)
    for part in chunks(len(images_NHWC), rows):
        # A copy: the array may be a file mapped into memory, which torch must not write to.
        batch = torch.from_numpy(np.array(images_NHWC[part]))
        yield batch.to(device).permute(0, 3, 1, 2).contiguous().float() / 255


def batches_of(train_state: TrainState, images_NHWC: NDArray[np.uint8]) -> Iterator[Tensor]:
    """Yield batches that suit the train_state's networks, on its device."""
    return batches(images_NHWC, train_state.device, base=train_state.config.width)


@torch.no_grad()
def posterior_means(train_state: TrainState, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the vectors of images, of shape (N, Z)."""
    with train_state.ema.swapped_in():
        means = [
            train_state.model.encoder(x_BCHW)[0].cpu() for x_BCHW in batches_of(train_state, images_NHWC)
        ]
    return torch.cat(means).numpy()


@torch.no_grad()
def reconstructions(train_state: TrainState, images_NHWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the images that decode the posterior means, of shape (N, H, W, C), as the service does."""
    with train_state.ema.swapped_in():
        made = []
        for x_BCHW in batches_of(train_state, images_NHWC):
            output_BCHW = train_state.model.decoder(train_state.model.encoder(x_BCHW)[0])
            made.append(_as_bytes(train_state.likelihood.pixel_mean(output_BCHW)))
    return np.concatenate(made)


def samples(train_state: TrainState, count: int, *, seed: int) -> NDArray[np.uint8]:
    """Return images that decode draws from the prior, of shape (N, H, W, C)."""
    return np.concatenate([_as_bytes(mean_BCHW) for mean_BCHW in prior_means(train_state, count, seed=seed)])


@torch.no_grad()
def prior_means(train_state: TrainState, count: int, *, seed: int) -> Iterator[Tensor]:
    """Yield pixel means of `count` draws from the prior, of shape (B, C, H, W)."""
    noise = np.random.default_rng(seed)
    rows = chunk_size(*train_state.shape, base=train_state.config.width)
    for part in chunks(count, rows):
        shape = (part.stop - part.start, train_state.config.latent_dim)
        latent_BZ = torch.from_numpy(noise.standard_normal(shape, dtype=np.float32)).to(train_state.device)
        with train_state.ema.swapped_in():
            mean_BCHW = train_state.likelihood.pixel_mean(train_state.model.decoder(latent_BZ))
        yield mean_BCHW


def _as_bytes(mean_BCHW: Tensor) -> NDArray[np.uint8]:
    # As the decoder's graph rounds.
    bytes_BHWC: NDArray[np.uint8] = (
        (mean_BCHW * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()
    )
    return bytes_BHWC
