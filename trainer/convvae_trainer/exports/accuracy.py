"""The accuracy of graphs in another precision: their results on test images beside those of fp32.

N = images, H and W = height and width, C = channels, Z = latent dimension.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from convvae_service.bundle import Accuracy, LikelihoodSpec, Parity, distortion, rate
from convvae_trainer.evaluation.image_quality import mse, psnr
from convvae_trainer.exports.graph_pair import GraphPair, Posterior
from convvae_trainer.exports.parity import BATCHES

__all__ = ["COSINE_MEAN", "COSINE_P01", "PSNR_LOSS_DB", "Reference", "shortfalls"]

# The least cosine of embeddings in the mean and at the 1st percentile, and the bound of the loss of PSNR.
COSINE_MEAN = 0.999
COSINE_P01 = 0.99
PSNR_LOSS_DB = 0.3


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """The results of the fp32 graphs on test images, which those of another precision are compared with."""

    images: NDArray[np.uint8]
    likelihood: LikelihoodSpec
    pair: GraphPair
    posterior: Posterior
    psnr_db: float
    elbo: float | None

    @classmethod
    def of(cls, pair: GraphPair, images: NDArray[np.uint8], *, likelihood: LikelihoodSpec) -> Self:
        """Run the fp32 graphs on test images, uint8 of shape (N, H, W, C)."""
        posterior = pair.encode(images)
        psnr_db, elbo = _quality(pair, posterior, images, likelihood)
        return cls(
            images=images,
            likelihood=likelihood,
            pair=pair,
            posterior=posterior,
            psnr_db=psnr_db,
            elbo=elbo,
        )

    def accuracy(self, pair: GraphPair) -> Accuracy:
        """Return the accuracy of graphs in another precision."""
        posterior = pair.encode(self.images)
        cosine_N = _cosine(posterior[0], self.posterior[0])
        psnr_db, elbo = _quality(pair, posterior, self.images, self.likelihood)
        return Accuracy(
            images=len(self.images),
            cosine_mean=float(cosine_N.mean()),
            cosine_p01=float(np.percentile(cosine_N, 1)),
            psnr_loss_db=self.psnr_db - psnr_db,
            elbo_change=None if elbo is None or self.elbo is None else elbo - self.elbo,
        )

    def parity(self, pair: GraphPair) -> Parity:
        """Return the largest differences of graphs in another precision, at several batch sizes."""
        mean, log_variance, image, pixel_mean = 0.0, 0.0, 0.0, 0.0
        for count in BATCHES:
            images = self.images[np.resize(np.arange(len(self.images)), count)]
            (mean_NZ, log_variance_NZ), (own_NZ, own_log_variance_NZ) = (
                each.encode(images) for each in (self.pair, pair)
            )
            mean = max(mean, _difference(own_NZ, mean_NZ))
            if log_variance_NZ is not None and own_log_variance_NZ is not None:
                log_variance = max(log_variance, _difference(own_log_variance_NZ, log_variance_NZ))
            decoded, own_decoded = self.pair.decode(mean_NZ), pair.decode(mean_NZ)
            image = max(image, _difference(own_decoded[0], decoded[0]))
            pixel_mean = max(pixel_mean, _difference(own_decoded[1], decoded[1]))
        return Parity(
            batches=BATCHES,
            mean=mean,
            log_variance=None if self.posterior[1] is None else log_variance,
            image_steps=int(image),
            pixel_mean=pixel_mean,
        )


def shortfalls(accuracy: Accuracy) -> list[str]:
    """Return a phrase for each figure of an accuracy that is not good enough."""
    found = []
    # Written so that NaN fails too.
    if not accuracy.cosine_mean >= COSINE_MEAN:
        found.append(
            f"the cosine of embeddings is {accuracy.cosine_mean:.5f} in the mean (at least {COSINE_MEAN})"
        )
    if not accuracy.cosine_p01 >= COSINE_P01:
        found.append(f"it is {accuracy.cosine_p01:.5f} at the 1st percentile (at least {COSINE_P01})")
    if not accuracy.psnr_loss_db < PSNR_LOSS_DB:
        found.append(f"reconstructions lose {accuracy.psnr_loss_db:.2f} dB (less than {PSNR_LOSS_DB})")
    return found


def _quality(
    pair: GraphPair, posterior: Posterior, images: NDArray[np.uint8], likelihood: LikelihoodSpec
) -> tuple[float, float | None]:
    """Return (mean PSNR of reconstructions in dB, ELBO at the posterior mean or None for `ae`)."""
    mean_NZ, log_variance_NZ = posterior
    psnr_parts, distortion_parts = [], []
    for chunk in pair.chunks(len(images)):
        decoded, pixel_mean = pair.decode(mean_NZ[chunk])
        psnr_parts.append(psnr(mse(_unit(images[chunk]), _unit(decoded))).numpy())
        distortion_parts.append(distortion(likelihood, images[chunk], pixel_mean))
    psnr_db = float(np.concatenate(psnr_parts).mean(dtype=np.float64))
    if log_variance_NZ is None:
        return psnr_db, None
    loss_N = np.concatenate(distortion_parts).astype(np.float64) + rate(mean_NZ, log_variance_NZ)
    return psnr_db, -float(loss_N.mean())


def _unit(images: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


def _cosine(first_NZ: NDArray[np.float32], second_NZ: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the cosine of each pair of rows; 1 for two rows of zeros, 0 if one of them is zero."""
    first, second = first_NZ.astype(np.float64), second_NZ.astype(np.float64)
    dot_N = (first * second).sum(axis=1)
    norm_N = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    both_zero = ~first.any(axis=1) & ~second.any(axis=1)
    return np.where(both_zero, 1.0, dot_N / np.where(norm_N == 0, 1.0, norm_N))


def _difference(found: NDArray[np.generic], expected: NDArray[np.generic]) -> float:
    return float(np.abs(found.astype(np.float64) - expected.astype(np.float64)).max())
