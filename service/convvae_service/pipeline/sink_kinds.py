"""The kinds of sinks: a table with one row for each. To add a kind, write its module and add its row."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from convvae_service.images import Source, SourceOptions
from convvae_service.pipeline.errors import BadSink, BadUse
from convvae_service.pipeline.journal import JOURNAL_FILE, Job
from convvae_service.pipeline.npy_sink import NpySink, ids_path
from convvae_service.pipeline.output import FileOutput, RunOutput, failed_path
from convvae_service.pipeline.parquet_sink import ParquetSink, import_pyarrow
from convvae_service.pipeline.parts import PartedOutput, check_own_folder
from convvae_service.pipeline.sink import Provenance, Sink

__all__ = [
    "SINK_KINDS",
    "SinkKind",
    "check_is_apart",
    "check_sink",
    "job_of",
    "open_output",
    "open_sink",
]


class _OpenSink(Protocol):
    def __call__(self, path: Path, provenance: Provenance, *, overwrite: bool) -> Sink: ...


@dataclass(frozen=True, slots=True)
class SinkKind:
    """A kind of file.

    Attributes:
        suffix: Suffix of the file names, in lower case.
        check_packages: Raise `MissingExtra` if a package that it needs is not installed.
        open: Return the sink at a path. The sink writes nothing before it is entered.
    """

    suffix: str
    check_packages: Callable[[], object]
    open: _OpenSink


SINK_KINDS: tuple[SinkKind, ...] = (
    SinkKind(".parquet", import_pyarrow, ParquetSink),
    SinkKind(".npy", import_pyarrow, NpySink),  # the table of failed images is Parquet
)


def check_sink(path: Path, *, overwrite: bool, resume: bool = False) -> None:
    """Check that embeddings can be written to `path`, before any other work.

    Raises:
        BadSink: The suffix is unknown, the folder does not exist, or the path exists already.
        BadUse: A file is to be resumed, or a result both resumed and overwritten.
        MissingExtra: A package for this kind of sink is not installed.
    """
    try:
        _check_place(path, overwrite=overwrite, resume=resume)
    except OSError as error:
        raise BadSink(f"{str(path)!r} cannot be written: {error.strerror or error}") from None


def _check_place(path: Path, *, overwrite: bool, resume: bool) -> None:
    kind = _kind_of(path)
    if kind is None:
        import_pyarrow()
    else:
        kind.check_packages()
    if resume and overwrite:
        raise BadUse("--resume and --force exclude each other")
    if not path.parent.is_dir():
        raise BadSink(f"the folder {str(path.parent)!r} of the sink does not exist")
    if kind is None:
        _check_folder(path, overwrite=overwrite, resume=resume)
        return
    if resume:
        raise BadUse(f"{path.name} is one file, which is written as a whole: --resume needs a folder")
    if path.is_dir():
        raise BadSink(f"{str(path)!r} is a folder: give the name of a file")
    for each in _files_of(path, kind):
        if each.is_symlink() and not each.exists():
            raise BadSink(f"{str(each)!r} is a link to a file that does not exist: give another name")
        if each.exists() and not each.is_file():
            raise BadSink(f"{str(each)!r} is not a regular file: give another name")
        if each.exists() and not overwrite:
            raise BadSink(f"{str(each)!r} exists: give --force to replace it")


def _files_of(path: Path, kind: SinkKind) -> list[Path]:
    """Return the files that a run may write or remove."""
    ids = [ids_path(path)] if kind.open is NpySink else []
    return [path, *ids, failed_path(path)]


def check_is_apart(path: Path, source: Source) -> None:
    """Check that no source is overwritten.

    Raises:
        BadSink: A source is the sink, or is in a folder that is the sink.
    """
    kind = _kind_of(path)
    targets = {each.resolve() for each in ([path] if kind is None else _files_of(path, kind))}
    for each in source.paths:
        found = each.resolve()
        if found in targets or not targets.isdisjoint(found.parents):
            raise BadSink(f"{str(each)!r} is a source, and the run would replace it: give another sink")


def _check_folder(path: Path, *, overwrite: bool, resume: bool) -> None:
    if not path.exists():
        return
    if not path.is_dir():
        raise BadSink(f"{str(path)!r} is a file: give a folder, or a name that ends in {_suffixes()}")
    if not any(path.iterdir()):
        return
    if not (path / JOURNAL_FILE).exists():
        raise BadSink(f"{str(path)!r} has other files and no result: give another name")
    if overwrite:
        check_own_folder(path)
    elif not resume:
        raise BadSink(f"{str(path)!r} exists: give --resume to continue it, or --force to replace it")


def open_sink(path: Path, provenance: Provenance, *, overwrite: bool) -> Sink:
    """Return the sink of a file, after `check_sink`. It writes nothing before it is entered."""
    kind = _kind_of(path)
    assert kind is not None
    return kind.open(path, provenance, overwrite=overwrite)


def open_output(
    path: Path, provenance: Provenance, job: Job, *, part_rows: int, overwrite: bool, resume: bool
) -> RunOutput:
    """Return the output at `path`, after `check_sink`. A folder that is overwritten is emptied here.

    Raises:
        BadSink: The folder is of another job or encoder, or another run is writing it.
    """
    if _kind_of(path) is not None:
        return FileOutput(path, open_sink(path, provenance, overwrite=overwrite), overwrite=overwrite)
    return PartedOutput(path, provenance, job, part_rows=part_rows, resume=resume, overwrite=overwrite)


def job_of(source: Source, provenance: Provenance, options: SourceOptions, *, part_rows: int) -> Job:
    """Return what a result is made of, as its journal names it."""
    settings = {
        "--part-rows": part_rows,
        "--keep": list(options.keep),
        "--where": options.where,
        "--image-column": options.image_column,
        "--id-column": options.id_column,
        "--max-pixels": options.max_pixels,
        "columns": provenance.columns.described(),
    }
    encoder = {key: value for key, value in provenance.as_metadata().items() if key != "convvae.source"}
    shards = [(shard.name, stamp) for shard, stamp in zip(source.shards, source.stamps, strict=True)]
    return Job(encoder=encoder, settings=settings, shards=shards)


def _kind_of(path: Path) -> SinkKind | None:
    """Return the kind of file, or None for a folder."""
    for kind in SINK_KINDS:
        if path.suffix.lower() == kind.suffix:
            return kind
    if not path.suffix or path.is_dir():
        return None
    raise BadSink(
        f"{path.name} is not a sink: its name must end in {_suffixes()}, or have no suffix for a folder"
    )


def _suffixes() -> str:
    return " or ".join(kind.suffix for kind in SINK_KINDS)
