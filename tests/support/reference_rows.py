"""Rows by the definition of the contract, without a server."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from convvae.v1 import vae_pb2 as pb
from convvae_service.api.noise import latent_noise
from convvae_service.bundle import distortion
from support.tiny_bundle import BERNOULLI, LATENT_DIM, SHAPE, weights

__all__ = ["decoded", "encoded", "reference_distortion", "reference_latents", "within_a_step"]


def reference_latents(asked: pb.SampleRequest) -> NDArray[np.float32]:
    """Return the latents of a request by the definition, without a server."""
    noise = latent_noise(asked.seed, first_row=asked.first_row, count=asked.count, dimension=LATENT_DIM)
    return noise * np.float32(asked.temperature if asked.HasField("temperature") else 1)


def decoded(latents: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the means of p(x|z) in 0..1."""
    logits = latents.astype(np.float64) @ weights(SHAPE, LATENT_DIM, seed=0)["decode"]
    return ((1 + np.tanh(logits / 2)) / 2).reshape(-1, *SHAPE.as_tuple)


def encoded(images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return mean and log-variance of q(z|x)."""
    both = images.reshape(len(images), -1) / 255 @ weights(SHAPE, LATENT_DIM, seed=0)["encode"]
    mean, log_variance = np.split(both.astype(np.float32), 2, axis=1)
    return mean, log_variance


def reference_distortion(images: NDArray[np.uint8], request: pb.ScoreRequest) -> NDArray[np.float64]:
    """Return each image's distortion by the contract, without a server."""
    draws = request.num_samples
    mean, log_variance = encoded(images)
    if not draws:
        return distortion(BERNOULLI, images, decoded(mean).astype(np.float32)).astype(np.float64)
    rows = [
        latent_noise(request.seed, first_row=row * draws, count=draws, dimension=LATENT_DIM)
        for row in range(request.first_row, request.first_row + len(images))
    ]
    latents = np.concatenate(
        [m + np.exp(0.5 * v) * noise for m, v, noise in zip(mean, log_variance, rows, strict=True)]
    )
    pixel_mean = decoded(latents).astype(np.float32)
    each = distortion(BERNOULLI, np.repeat(images, draws, axis=0), pixel_mean)
    return np.asarray(each.reshape(-1, draws).mean(axis=1), np.float64)


def within_a_step(found: NDArray[np.uint8], expected: NDArray[Any]) -> bool:
    """Compare images."""
    return bool(np.abs(found.astype(np.float64) - expected).max() <= 1)
