"""How a path becomes a sink of embeddings."""

from pathlib import Path

from convvae_service.pipeline.errors import BadSink
from convvae_service.pipeline.parquet import ParquetSink, import_pyarrow
from convvae_service.pipeline.sink import Provenance, Sink

__all__ = ["check_sink", "open_sink"]


def check_sink(path: Path, *, overwrite: bool) -> None:
    """Check, before any work, that embeddings can be written to `path`.

    Raises:
        BadSink: Another suffix than .parquet, no such folder, or something is there already.
        MissingExtra: pyarrow is not installed.
    """
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
    return ParquetSink(path, provenance, overwrite=overwrite)
