"""The kinds of sources: a table with one row for each. To add a kind, write its module and add its row."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from convvae_service.images.address import shown_address
from convvae_service.images.array_source import open_array_source
from convvae_service.images.arrays import is_array_name
from convvae_service.images.files import file_kind, left_out_of
from convvae_service.images.folder_source import open_folder_source, open_list_source
from convvae_service.images.location import Location
from convvae_service.images.parquet_source import open_parquet_source
from convvae_service.images.patterns import expand
from convvae_service.images.source import BadSource, Source, SourceOptions
from convvae_service.images.tar_source import TAR_SUFFIXES, open_tar_source

__all__ = ["SOURCE_KINDS", "SourceKind", "open_source", "open_sources"]

PARQUET_SUFFIXES = (".parquet", ".parq", ".pq")
_COMPRESSED = (".gz", ".tgz", ".bz2", ".tbz", ".tbz2", ".xz", ".txz", ".zst", ".tzst", ".lz4", ".zip", ".7z")


@dataclass(frozen=True, slots=True)
class SourceKind:
    """A kind of source.

    Attributes:
        description: Its name in error messages.
        matches: Return whether an existing location is of this kind.
        open: Open the source at a location, or raise `BadSource`.
    """

    description: str
    matches: Callable[[Location], bool]
    open: Callable[[Location, SourceOptions], Source]


SOURCE_KINDS: tuple[SourceKind, ...] = (
    SourceKind("a folder of images", Location.is_folder, open_folder_source),
    SourceKind("a tar archive (.tar)", lambda location: location.suffix in TAR_SUFFIXES, open_tar_source),
    SourceKind(
        "a Parquet file (.parquet)", lambda location: location.suffix in PARQUET_SUFFIXES, open_parquet_source
    ),
    SourceKind(
        "an .npy, .npz or idx file (.idx, or named like train-images-idx3-ubyte, also with .gz)",
        lambda location: is_array_name(location.name),
        open_array_source,
    ),
)


def open_source(text: str | Path, options: SourceOptions | None = None) -> Source:
    """Open one source, or all sources of a pattern; see `open_sources`."""
    return open_sources([text], options)


def open_sources(texts: Sequence[str | Path], options: SourceOptions | None = None) -> Source:
    """Open sources as one. The first row of `SOURCE_KINDS` that matches opens each.

    Args:
        texts: Paths and addresses of folders and files, patterns of them, or `-` for a list of paths on
            standard input.
        options: What the run asks of the sources.

    Raises:
        BadSource: A source does not exist, matches no kind, or is damaged or empty. Or two of them have one
            name, or other columns, shapes of arrays, or types than the first.
    """
    options = options or SourceOptions()
    locations = [location for text in texts for location in expand(str(text))]
    paths = tuple(location.path for location in locations if location.path is not None)
    if len(locations) == 1:
        return replace(_open(locations[0], options), paths=paths)
    _check_names(locations)
    sources = [_open(location, replace(options, prefix=f"{location.name}/")) for location in locations]
    return replace(_joined(sources), paths=paths)


def _check_names(locations: Sequence[Location]) -> None:
    counts = Counter(location.name for location in locations)
    repeated = next((name for name, count in counts.items() if count > 1), None)
    if repeated is None:
        return
    places = {location.place for location in locations if location.name == repeated}
    is_twice = len(places) < counts[repeated]
    advice = "One is given twice" if is_twice else "Rename one, or embed each to a result of its own"
    raise BadSource(f"several sources are called {repeated!r}: their ids would be equal. {advice}")


def _open(location: Location, options: SourceOptions) -> Source:
    if location.text == "-":
        _check_flags(options, "standard input")
        return open_list_source(options)
    shown = shown_address(location.text)
    if not location.text:
        raise BadSource("a source is an empty text: give a path, such as . for this folder")
    if not location.exists():
        raise BadSource(f"source '{shown}' does not exist")
    # A read of a FIFO or a device might wait for ever.
    if not location.is_folder() and not location.is_file():
        raise BadSource(f"source '{shown}' is not a folder and not a regular file")
    for kind in SOURCE_KINDS:
        if kind.matches(location):
            if kind.open is not open_parquet_source:
                _check_flags(options, location.name)
            return kind.open(location, options)
    raise BadSource(f"{location.name} is not a source: {_advice(location)}")


def _check_flags(options: SourceOptions, name: str) -> None:
    """Refuse the flags of Parquet files for a source of another kind."""
    flags = {
        "--where": options.where,
        "--image-column": options.image_column,
        "--id-column": options.id_column,
    }
    for flag, value in flags.items():
        if value:
            raise BadSource(f"{flag} needs Parquet files, and {name} is none")


def _advice(location: Location) -> str:
    """Return what to give instead of a source of no kind."""
    if location.suffix in _COMPRESSED:
        return "it is compressed: decompress it first"
    if file_kind(location.name) == "image":
        return "it is one image: give its folder, or write its path to standard input of the source -"
    return f"give {', or '.join(kind.description for kind in SOURCE_KINDS)}"


def _joined(sources: Sequence[Source]) -> Source:
    first = sources[0]
    for other in sources[1:]:
        if other.columns != first.columns:
            raise BadSource(f"{first.name} and {other.name} have columns of different types to keep")
    shapes = {source.image_shape: source for source in sources if source.image_shape is not None}
    if len(shapes) > 1:
        (one, a), (two, b), *_ = shapes.items()
        raise BadSource(f"{a.name} has images of shape {one}, and {b.name} of shape {two}")
    counts = Counter[str]()
    for source in sources:
        counts.update(source.left_out.counts)
    irregular = [name for source in sources for name in source.left_out.irregular]
    others = f" and {len(sources) - 1} more" if len(sources) > 1 else ""
    return Source(
        name=f"{first.name}{others}",
        shards=[shard for source in sources for shard in source.shards],
        columns=first.columns,
        left_out=left_out_of(counts, irregular),
        image_shape=next(iter(shapes), None),
        has_files=any(source.has_files for source in sources),
        where=first.where,
    )
