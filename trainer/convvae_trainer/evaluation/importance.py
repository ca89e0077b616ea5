"""The importance-weighted estimate of log p(x) (Burda et al. 2015, section 3), in nats per image.

B = batch, K = importance samples, C = channels, H and W = height and width, Z = latent dimension, N = all
images.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from convvae_trainer.errors import BadConfig
from convvae_trainer.evaluation.inference import batches
from convvae_trainer.networks.likelihoods import PixelLikelihood
from convvae_trainer.objectives.bound import Networks, importance_log_weights, reparameterise
from convvae_trainer.objectives.registry import objective_class

__all__ = ["MAX_SAMPLES", "LogLikelihood", "check_samples", "log_likelihoods"]

MAX_SAMPLES = 5000
# Pixels that are decoded at once. The networks' largest layer has about eight times as many values, so that
# a CPU needs 0.1 GB at most, and a GPU 2 GB.
CHUNK_VALUES = {"cpu": 1 << 19, "cuda": 1 << 24}


@dataclass(frozen=True, kw_only=True, slots=True)
class LogLikelihood:
    """The mean of log p(x) over the first `images` test images, estimated from `samples` draws for each.

    The estimate is a lower bound of log p(x) in expectation, and rises with `samples`; with one sample it is
    the ELBO. `standard_error` is that of the mean over images; it is None for a single image.
    """

    nats: float
    standard_error: float | None
    samples: int
    images: int
    seed: int

    @classmethod
    def from_images(cls, nats_N: NDArray[np.float64], *, samples: int, seed: int) -> "LogLikelihood":
        """Return the mean over images."""
        count = len(nats_N)
        error = float(nats_N.std(ddof=1) / math.sqrt(count)) if count > 1 else None
        return cls(nats=float(nats_N.mean()), standard_error=error, samples=samples, images=count, seed=seed)


def check_samples(samples: int, *, objective: str) -> None:
    """Raise `BadConfig` unless the objective has a log-likelihood and the number of samples is in range."""
    if not objective_class(objective).has_rate:
        raise BadConfig(f"--importance-samples: the objective `{objective}` has no prior, and so no log p(x)")
    if not 1 <= samples <= MAX_SAMPLES:
        raise BadConfig(f"--importance-samples is {samples}: it must be 1 to {MAX_SAMPLES}")


@torch.no_grad()
def log_likelihoods(
    model: Networks,
    likelihood: PixelLikelihood,
    images_NHWC: NDArray[np.uint8],
    *,
    samples: int,
    device: torch.device,
    seed: int = 0,
    chunk_values: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> NDArray[np.float64]:
    """Return log 1/K sum_k p(x, z_k) / q(z_k|x) of each image, of shape (N,), computed in float32.

    The draws of an image depend on the seed and its row only: they are the first draws of a larger K.

    Args:
        model: The networks.
        likelihood: The likelihood of pixels; its distortion is that of the service.
        images_NHWC: uint8 images.
        samples: K, the posterior draws for each image.
        device: The device of the networks.
        seed: The seed of the draws.
        chunk_values: Pixels that are decoded at once; they decide on the memory, `samples` does not.
        progress: Called now and then with the share that is done, 0 to 1.
    """
    total = len(images_NHWC)
    chunk_rows = max(1, (chunk_values or CHUNK_VALUES[device.type]) // math.prod(images_NHWC.shape[1:]))
    # With few samples several images fit into a chunk; with many samples each image takes several chunks.
    images_at_once, samples_at_once = max(1, chunk_rows // samples), min(chunk_rows, samples)
    nats_N = np.empty(total)
    done = 0
    for x_BCHW in batches(images_NHWC, device):
        mean_BZ, log_variance_BZ = model.encoder(x_BCHW)
        for first in range(0, len(x_BCHW), images_at_once):
            rows = slice(first, first + images_at_once)
            x, mean, log_variance = x_BCHW[rows], mean_BZ[rows], log_variance_BZ[rows]
            count = len(x)
            streams = [np.random.default_rng((seed, done + row)) for row in range(count)]
            log_sum_B = torch.full((count,), -math.inf, dtype=torch.float64, device=device)
            for drawn in range(0, samples, samples_at_once):
                num_draws = min(samples_at_once, samples - drawn)
                noise_BKZ = _noise(streams, num_draws, mean.shape[1]).to(device)
                log_weights_BK = _log_weights(model, likelihood, x, mean, log_variance, noise_BKZ)
                log_sum_B = torch.logaddexp(log_sum_B, log_weights_BK.double().logsumexp(1))
                if progress is not None:
                    progress((done + count * (drawn + num_draws) / samples) / total)
            nats_N[done : done + count] = (log_sum_B - math.log(samples)).cpu().numpy()
            done += count
    return nats_N


def _noise(streams: list[np.random.Generator], num_draws: int, latent_dim: int) -> Tensor:
    """Return standard normal noise of shape (B, K, Z): the next draws of each image's stream."""
    noise_BKZ = np.empty((len(streams), num_draws, latent_dim), np.float32)
    for stream, noise_KZ in zip(streams, noise_BKZ, strict=True):
        stream.standard_normal(dtype=np.float32, out=noise_KZ)
    return torch.from_numpy(noise_BKZ)


def _log_weights(
    model: Networks,
    likelihood: PixelLikelihood,
    x_BCHW: Tensor,
    mean_BZ: Tensor,
    log_variance_BZ: Tensor,
    noise_BKZ: Tensor,
) -> Tensor:
    """Return log p(x, z) / q(z|x) of the draws that the noise gives, of shape (B, K)."""
    latent_BKZ = reparameterise(mean_BZ[:, None], log_variance_BZ[:, None], noise_BKZ)
    pixel_mean = likelihood.pixel_mean(model.decoder(latent_BKZ.flatten(0, 1)))
    repeated = x_BCHW.repeat_interleave(noise_BKZ.shape[1], dim=0)
    distortion_BK = likelihood.evaluated_distortion(pixel_mean, repeated).view(noise_BKZ.shape[:2])
    return importance_log_weights(distortion_BK, mean_BZ, log_variance_BZ, noise_BKZ)
