"""What turns images into embeddings: one protocol, in this process or through a service.

Dimensions: B = rows of a batch, Z = latent dimension.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from convvae_service.bundle import Manifest
from convvae_service.images import ModelInput
from convvae_service.pipeline.errors import BadModel

__all__ = ["Embeddings", "Encoder", "EncoderInfo"]


class Embeddings(NamedTuple):
    """Posterior means and, where asked for, log-variances: float32 (B, Z)."""

    mean: NDArray[np.float32]
    log_variance: NDArray[np.float32] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderInfo:
    """One version of a model and what an encoder of it wants.

    Attributes:
        input: What it takes.
        version: Its version, fixed for the whole run.
        precision: Of the graph that runs.
        sha256: Of the encoder's file.
        latent_dim: Z.
        has_log_variance: Whether the model has a posterior: `ae` has none.
    """

    input: ModelInput
    version: int
    precision: str
    sha256: str
    latent_dim: int
    has_log_variance: bool

    @classmethod
    def of(cls, manifest: Manifest, *, version: int, precision: str) -> "EncoderInfo":
        """Read it from a manifest.

        Raises:
            BadModel: The model cannot encode, or not in this precision.
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


class Encoder(Protocol):
    """Runs the encoder of one version. Safe to call from several threads."""

    @property
    def info(self) -> EncoderInfo:
        """What runs."""

    @property
    def lanes(self) -> int:
        """Calls at one time that make sense; each has a thread of the run."""

    @property
    def batch_rows(self) -> int:
        """Rows of a call at which it is fast."""

    def encode(self, images_BHWC: NDArray[np.uint8], /, *, log_variance: bool) -> Embeddings:
        """Encode images of the model's shape.

        Raises:
            RunFailed: The encoder broke, or the service is gone.
        """

    def close(self) -> None:
        """Give up: calls in flight fail soon. May be called again."""
