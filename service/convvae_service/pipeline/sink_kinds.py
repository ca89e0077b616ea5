"""The kinds of sinks: a table with one row for each. To add a kind, write its module and add its row."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from convvae_service.pipeline.errors import BadSink
from convvae_service.pipeline.parquet_sink import ParquetSink, import_pyarrow
from convvae_service.pipeline.sink import Provenance, Sink

__all__ = ["SINK_KINDS", "SinkKind", "check_sink", "open_sink"]


class _OpenSink(Protocol):
    def __call__(self, path: Path, provenance: Provenance, *, overwrite: bool) -> Sink: ...


@dataclass(frozen=True, slots=True)
class SinkKind:
    """A kind of sink.

    Attributes:
        suffix: Suffix of the file names, in lower case.
        check_packages: Raise `MissingExtra` if a package that it needs is not installed.
        open: Return the sink at a path. The sink writes nothing before it is entered.
    """

    suffix: str
    check_packages: Callable[[], object]
    open: _OpenSink


SINK_KINDS: tuple[SinkKind, ...] = (SinkKind(".parquet", import_pyarrow, ParquetSink),)


def check_sink(path: Path, *, overwrite: bool) -> None:
    """Check that embeddings can be written to `path`, before any other work.

    Raises:
        BadSink: The suffix is unknown, the folder does not exist, or the path exists already.
        MissingExtra: A package for this kind of sink is not installed.
    """
    _kind_of(path).check_packages()
    if not path.parent.is_dir():
        raise BadSink(f"the folder {str(path.parent)!r} of the sink does not exist")
    if path.is_dir():
        raise BadSink(f"{str(path)!r} is a folder: give the name of a file")
    if path.exists() and not path.is_file():
        raise BadSink(f"{str(path)!r} is not a regular file: give another name")
    if path.exists() and not overwrite:
        raise BadSink(f"{str(path)!r} exists: give --overwrite to replace it")


def open_sink(path: Path, provenance: Provenance, *, overwrite: bool) -> Sink:
    """Return the sink at `path`, after `check_sink`. It writes nothing before it is entered."""
    return _kind_of(path).open(path, provenance, overwrite=overwrite)


def _kind_of(path: Path) -> SinkKind:
    for kind in SINK_KINDS:
        if path.suffix.lower() == kind.suffix:
            return kind
    suffixes = " or ".join(kind.suffix for kind in SINK_KINDS)
    raise BadSink(f"{path.name} is not a sink: its name must end in {suffixes}")
