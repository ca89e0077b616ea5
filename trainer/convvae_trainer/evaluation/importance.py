"""The importance-weighted log-likelihood of images (Burda et al. 2015, section 3), in nats per image.

B = batch, K = importance samples, C = channels, H and W = height and width, Z = latent dimension, N = all
images.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from convvae_trainer.errors import BadConfig
from convvae_trainer.evaluation.inference import batches
from convvae_trainer.networks.likelihoods import PixelLikelihood
from convvae_trainer.objectives.bound import Networks, importance_log_weights, reparameterise

__all__ = ["MAX_SAMPLES", "LogLikelihood", "check_samples", "log_likelihoods"]

MAX_SAMPLES = 5000
# Pixels that are decoded at once. The networks' largest layer holds some eight times as many values, so that
# a CPU takes 0.1 GB or less, and a GPU 2 GB.
CHUNK_VALUES = {"cpu": 1 << 19, "cuda": 1 << 24}


@dataclass(frozen=True, kw_only=True, slots=True)
class LogLikelihood:
    """The mean of log p(x) over the first `images` of the test images, estimated from `samples` draws each.

    The estimate is below log p(x) in expectation and rises with `samples`; one sample gives the ELBO.
    `standard_error` is of the mean over images, as a sample of their population.
    """

    nats: float
    standard_error: float | None
    samples: int
    images: int
    seed: int

    @classmethod
    def of(cls, nats_N: NDArray[np.float64], *, samples: int, seed: int) -> "LogLikelihood":
        """Return the mean over images."""
        count = len(nats_N)
        error = float(nats_N.std(ddof=1) / math.sqrt(count)) if count > 1 else None
        return cls(nats=float(nats_N.mean()), standard_error=error, samples=samples, images=count, seed=seed)


def check_samples(samples: int, *, objective: str) -> None:
    """Raise `BadConfig` unless the objective has a log-likelihood and so many samples can be drawn."""
    if objective == "ae":
        raise BadConfig("--importance-samples: an autoencoder (`ae`) has no prior, and so no log p(x)")
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

    Each image has draws of its own: the first ones of a larger K, whatever other images there are.

    Args:
        model: The networks.
        likelihood: Of pixels; its distortion is the service's.
        images_NHWC: uint8 images.
        samples: K, the posterior draws of each image.
        device: Of the networks.
        seed: Of the draws.
        chunk_values: Pixels that are decoded at once; the memory follows it, and not `samples`.
        progress: Is told now and then how much is done, 0 to 1.
    """
    found_N = np.empty(len(images_NHWC))
    values = chunk_values or CHUNK_VALUES[device.type]
    rows = max(1, values // math.prod(images_NHWC.shape[1:]))
    at_once, in_chunk = max(1, rows // samples), min(rows, samples)
    low = 0
    for x_BCHW in batches(images_NHWC, device):
        mean_BZ, log_variance_BZ = model.encoder(x_BCHW)
        for first in range(0, len(x_BCHW), at_once):
            part = slice(first, first + at_once)
            mean, log_variance, x = mean_BZ[part], log_variance_BZ[part], x_BCHW[part]
            streams = [np.random.default_rng((seed, low + row)) for row in range(len(x))]
            total_B = torch.full((len(x),), -math.inf, dtype=torch.float64, device=device)
            for drawn in range(0, samples, in_chunk):
                count = min(in_chunk, samples - drawn)
                noise_BKZ = np.empty((len(x), count, mean.shape[1]), np.float32)
                for stream, noise_KZ in zip(streams, noise_BKZ, strict=True):
                    stream.standard_normal(dtype=np.float32, out=noise_KZ)
                weights_BK = _log_weights(
                    model, likelihood, x, mean, log_variance, torch.from_numpy(noise_BKZ).to(device)
                )
                total_B = torch.logaddexp(total_B, weights_BK.double().logsumexp(1))
                if progress is not None:
                    progress((low + len(x) * (drawn + count) / samples) / len(images_NHWC))
            found_N[low : low + len(x)] = (total_B - math.log(samples)).cpu().numpy()
            low += len(x)
    return found_N


def _log_weights(
    model: Networks,
    likelihood: PixelLikelihood,
    x_BCHW: torch.Tensor,
    mean_BZ: torch.Tensor,
    log_variance_BZ: torch.Tensor,
    noise_BKZ: torch.Tensor,
) -> torch.Tensor:
    """Return the log-weights of these draws, of shape (B, K)."""
    latent_BKZ = reparameterise(mean_BZ[:, None], log_variance_BZ[:, None], noise_BKZ)
    pixels = likelihood.pixel_mean(model.decoder(latent_BKZ.flatten(0, 1)))
    repeated = x_BCHW.repeat_interleave(noise_BKZ.shape[1], dim=0)
    distortion_BK = likelihood.evaluated_distortion(pixels, repeated).view(noise_BKZ.shape[:2])
    return importance_log_weights(distortion_BK, mean_BZ, log_variance_BZ, noise_BKZ)
