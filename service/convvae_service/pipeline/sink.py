"""A sink of embeddings: the protocol, and what every sink says of them.

A sink is whole or absent: what it writes becomes visible in `finish`, and not at all without it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from convvae_service.bundle import ImageShape
from convvae_service.pipeline.encoders import Embeddings, EncoderInfo

__all__ = ["FORMAT_VERSION", "Provenance", "Sink"]

FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Provenance:
    """What made the embeddings. `log_variance`: whether the sink has it as a second column."""

    encoder: EncoderInfo
    source: str
    log_variance: bool

    def as_metadata(self) -> dict[str, str]:
        """Return what a sink stores beside the rows; docs/bulk-embedding.md describes each key."""
        encoder = self.encoder
        image: ImageShape = encoder.input.shape
        return {
            "convvae.format_version": str(FORMAT_VERSION),
            "convvae.model": encoder.input.model,
            "convvae.model_version": str(encoder.version),
            "convvae.precision": encoder.precision,
            "convvae.encoder_sha256": encoder.sha256,
            "convvae.latent_dim": str(encoder.latent_dim),
            "convvae.image": str(image),
            "convvae.source": self.source,
        }


class Sink(Protocol):
    """Takes rows in order, within a `with` block; leaving it without `finish` leaves nothing behind.

    Entering raises `BadSink` where the folder cannot be written to.
    """

    def write(self, ids: Sequence[str], embeddings: Embeddings) -> None:
        """Append rows."""

    def finish(self, extra: Mapping[str, str]) -> int:
        """Store `extra` beside the rows, make the sink visible, and return its bytes."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
