"""The encoder of a run: the protocol, and the embeddings that it returns.

Dimensions: B = rows of a batch, Z = latent dimension.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from convvae_service.bundle import Manifest
from convvae_service.images import ModelInput
from convvae_service.pipeline.errors import BadModel

__all__ = ["Embeddings", "EncoderInfo", "ImageEncoder"]


class Embeddings(NamedTuple):
    """Posterior means, float32 (B, Z), log-variances of the same shape, and ELBO terms (B,) in nats, or None.

    Distortion and rate are those of the posterior mean. The ELBO is -(distortion + rate).
    """

    mean: NDArray[np.float32]
    log_variance: NDArray[np.float32] | None = None
    distortion: NDArray[np.float32] | None = None
    rate: NDArray[np.float32] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderInfo:
    """The description of one encoder graph.

    Attributes:
        input: Name and image input of the model.
        version: Version of the model, fixed for the whole run.
        precision: Precision of the graph.
        sha256: Checksum of the graph's file.
        latent_dim: Z.
        has_log_variance: Whether the encoder returns log-variances. It does not for `ae`.
    """

    input: ModelInput
    version: int
    precision: str
    sha256: str
    latent_dim: int
    has_log_variance: bool

    @classmethod
    def of(cls, manifest: Manifest, *, version: int, precision: str) -> "EncoderInfo":
        """Return the description of the manifest's encoder in `precision`.

        Raises:
            BadModel: The model cannot encode, or has no encoder in this precision.
        """
        if "encode" not in manifest.capabilities:
            raise BadModel(f"model {manifest.model!r} cannot encode")
        for graph in manifest.graphs:
            if graph.role == "encoder" and graph.precision == precision:
                return cls(
                    input=ModelInput(manifest.model, manifest.image, manifest.resize),
                    version=version,
                    precision=precision,
                    sha256=graph.sha256,
                    latent_dim=manifest.latent_dim,
                    has_log_variance=manifest.has_log_variance,
                )
        raise BadModel(f"model {manifest.model!r} has no {precision} encoder")


class ImageEncoder(Protocol):
    """Encodes batches of images with one model version. Safe to use from several threads."""

    @property
    def info(self) -> EncoderInfo:
        """Description of the encoder graph."""

    @property
    def lanes(self) -> int:
        """Number of calls that run at the same time. Each needs a thread of the run."""

    @property
    def batch_rows(self) -> int:
        """Images that are best encoded together."""

    def encode(
        self, images_BHWC: NDArray[np.uint8], /, *, log_variance: bool, score: bool = False
    ) -> Embeddings:
        """Encode images of the model's shape, with log-variances and ELBO terms if they are asked for.

        Raises:
            RunFailed: The encoder failed, or the service cannot be reached.
        """

    def check(self) -> None:
        """Check that the encoder is still that of `info`, before what it has encoded becomes visible.

        Raises:
            RunFailed: It is another one now, or the service cannot be reached.
        """

    def close(self) -> None:
        """Release the encoder. Calls in flight fail soon. It may be called again."""
