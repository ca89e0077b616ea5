"""A sink of embeddings: the protocol, and the provenance that every sink stores.

A sink is complete or absent: the rows become visible in `finish`, and not at all without it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from convvae_service.pipeline.encoder import Embeddings, EncoderInfo

__all__ = ["FORMAT_VERSION", "Provenance", "Sink"]

FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Provenance:
    """The origin of embeddings.

    Attributes:
        encoder: Description of the encoder.
        source: Name of the source.
        log_variance: Whether the sink also stores log-variances.
    """

    encoder: EncoderInfo
    source: str
    log_variance: bool

    def as_metadata(self) -> dict[str, str]:
        """Return the metadata that a sink stores. docs/bulk-embedding.md describes each key."""
        encoder = self.encoder
        return {
            "convvae.format_version": str(FORMAT_VERSION),
            "convvae.model": encoder.input.model,
            "convvae.model_version": str(encoder.version),
            "convvae.precision": encoder.precision,
            "convvae.encoder_sha256": encoder.sha256,
            "convvae.latent_dim": str(encoder.latent_dim),
            "convvae.image": str(encoder.input.shape),
            "convvae.source": self.source,
        }


class Sink(Protocol):
    """A file that rows are written to, in order, inside a `with` block.

    Entering the block raises `BadSink` if the folder is not writable. Leaving the block without `finish`
    leaves no file behind.
    """

    def write(self, ids: Sequence[str], embeddings: Embeddings) -> None:
        """Append rows."""

    def finish(self, extra: Mapping[str, str]) -> int:
        """Store `extra` as metadata, make the file visible, and return its size in bytes."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
