"""Where embeddings go: one protocol, what every sink says of them, and how a path becomes a sink.

A sink is whole or absent: what it writes becomes visible in `finish`, and not at all without it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from convvae_service.manifest import ImageShape
from convvae_service.pipeline.encoders import Embeddings, EncoderInfo
from convvae_service.pipeline.errors import BadSink

__all__ = ["FORMAT_VERSION", "Provenance", "Sink", "check_sink", "open_sink"]

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


def check_sink(path: Path, *, overwrite: bool) -> None:
    """Check, before any work, that embeddings can be written to `path`.

    Raises:
        BadSink: Another suffix than .parquet, no such folder, or something is there already.
        MissingExtra: pyarrow is not installed.
    """
    from convvae_service.pipeline.parquet import import_pyarrow

    if path.suffix.lower() != ".parquet":
        raise BadSink(f"{path.name} is no sink: its name must end in .parquet")
    import_pyarrow()
    if not path.parent.is_dir():
        raise BadSink(f"the folder {str(path.parent)!r} of the sink does not exist")
    if path.is_dir():
        raise BadSink(f"{str(path)!r} is a folder: give the name of a file")
    if path.exists() and not overwrite:
        raise BadSink(f"{str(path)!r} exists: give --overwrite to replace it")


def open_sink(path: Path, provenance: Provenance, *, overwrite: bool) -> Sink:
    """Return the sink at `path`, which `check_sink` has passed; nothing is written before it is entered."""
    from convvae_service.pipeline.parquet import ParquetSink

    return ParquetSink(path, provenance, overwrite=overwrite)
