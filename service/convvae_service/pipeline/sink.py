"""A sink of embeddings: the protocol, the rows, and the provenance that every sink stores.

A sink is complete or absent: the rows become visible in `finish`, and not at all without it.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from convvae_service.pipeline.atomic_file import AtomicFile
from convvae_service.pipeline.encoder import Embeddings, EncoderInfo
from convvae_service.pipeline.errors import RunFailed
from convvae_service.pipeline.signals import defer_signals

__all__ = ["FORMAT_VERSION", "Columns", "EncodedRows", "FileSink", "Provenance", "Sink"]

FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """The columns of a result beside `id` and `embedding`.

    Attributes:
        log_variance: Whether there are log-variances.
        score: Whether there are ELBO, distortion and rate.
        thumbnail: Whether there are pictures of the model's input.
        float16: Whether vectors are stored as float16.
        kept: The Arrow types of the columns that are carried along, by name.
    """

    log_variance: bool = False
    score: bool = False
    thumbnail: bool = False
    float16: bool = False
    kept: Mapping[str, Any] = field(default_factory=dict)

    def described(self) -> list[str]:
        """Return the columns and their types as texts, to compare those of two runs."""
        flags = ("log_variance", "score", "thumbnail", "float16")
        named = [flag for flag in flags if getattr(self, flag)]
        return named + [f"{name}: {kind}" for name, kind in self.kept.items()]


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """Rows for a sink.

    Attributes:
        ids: Their ids.
        embeddings: One vector for each id.
        kept: The columns that are carried along: an Arrow array or a list with one value for each id.
        thumbnails: PNG files, one for each id, or none.
    """

    ids: Sequence[str]
    embeddings: Embeddings
    kept: Mapping[str, Any] = field(default_factory=dict)
    thumbnails: Sequence[bytes] = ()

    def vectors(self, name: str, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return the vectors of `embedding` or `log_variance`, (B, Z), as a sink stores them.

        Raises:
            RunFailed: A value is too large for the type.
        """
        array_BZ = self.embeddings.mean if name == "embedding" else self.embeddings.log_variance
        assert array_BZ is not None
        try:
            with np.errstate(over="raise"):
                return np.ascontiguousarray(array_BZ, dtype)
        except FloatingPointError:
            raise RunFailed(f"a vector has values beyond the range of {dtype}: omit --{dtype}") from None

    def slice(self, start: int, stop: int) -> "EncodedRows":
        """Return some of the rows."""
        part = slice(start, stop)
        vectors = (None if array is None else array[part] for array in self.embeddings)
        kept = {name: values[part] for name, values in self.kept.items()}
        return EncodedRows(self.ids[part], Embeddings(*vectors), kept, self.thumbnails[part])  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True, slots=True)
class Provenance:
    """The origin of embeddings.

    Attributes:
        encoder: Description of the encoder.
        source: Name of the source.
        columns: The columns of the result.
    """

    encoder: EncoderInfo
    source: str
    columns: Columns

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

    def write(self, rows: EncodedRows) -> None:
        """Append rows."""

    def finish(self, extra: Mapping[str, str], beside: AtomicFile | None = None) -> int:
        """Store `extra` as metadata, make the file visible, and return its size in bytes.

        Args:
            extra: More metadata.
            beside: A file that is written, and becomes visible before this one, or not at all.
        """

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class FileSink(ABC):
    """The part of a sink that opens its files, and discards them unless they are published; see `Sink`."""

    def __init__(self, path: Path, *, ends_run: bool = True) -> None:
        self._path = path
        self._ends_run = ends_run
        # What `_open` has opened so far: the files, and everything that must be closed.
        self._files: list[AtomicFile] = []
        self._streams: list[Any] = []

    @abstractmethod
    def _open(self) -> None:
        """Open the files and streams."""

    @abstractmethod
    def _complete(self, extra: Mapping[str, str]) -> None:
        """Write what is left, and close the streams."""

    def finish(self, extra: Mapping[str, str], beside: AtomicFile | None = None) -> int:
        """Publish the files, the first of them last; see `Sink`."""
        try:
            self._complete(extra)
            files = [*self._files, beside] if beside else self._files
            # A full disk must show before the first file is visible.
            for file in files:
                file.sync()
            sizes = self._published(files)
        except OSError as error:
            raise self._failed(error) from None
        return sum(sizes[file] for file in self._files)

    def _published(self, files: Sequence[AtomicFile]) -> Mapping[AtomicFile, int]:
        """Publish all files, the last one first, or none, and return their sizes."""
        sizes: dict[AtomicFile, int] = {}
        try:
            for file in reversed(files):
                sizes[file] = file.publish(ends_run=self._ends_run)
        except BaseException:
            for file in sizes:
                file.withdraw()
            raise
        return sizes

    def _failed(self, error: OSError) -> RunFailed:
        return RunFailed(f"{self._path.name} cannot be written: {error.strerror or error}")

    def __enter__(self) -> Self:
        try:
            # An exception between the creation of a file and its assignment would leave the file behind.
            with defer_signals():
                self._open()
            return self
        except BaseException:
            self._discard()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with defer_signals():
            self._discard()

    def _discard(self) -> None:
        """Remove the files that are not published, and close everything."""
        for file in self._files:
            file.remove()
        # After the removal, because closing a writer of Parquet writes a footer and may fail on a full disk.
        for stream in reversed(self._streams):
            with suppress(OSError):
                stream.close()
