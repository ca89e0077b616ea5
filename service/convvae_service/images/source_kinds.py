"""The kinds of sources: a table with one row for each. To add a kind, write its module and add its row."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from convvae_service.images.array_source import open_array_source
from convvae_service.images.arrays import is_array_file
from convvae_service.images.folder_source import FolderSource
from convvae_service.images.source import BadSource, Source

__all__ = ["SOURCE_KINDS", "SourceKind", "open_source"]


@dataclass(frozen=True, slots=True)
class SourceKind:
    """A kind of source.

    Attributes:
        description: Its name in error messages.
        matches: Return whether an existing path is of this kind.
        open: Open the source at a path, or raise `BadSource`.
    """

    description: str
    matches: Callable[[Path], bool]
    open: Callable[[Path], Source]


SOURCE_KINDS: tuple[SourceKind, ...] = (
    SourceKind("a folder of images", Path.is_dir, FolderSource),
    SourceKind(
        "an .npy, .npz or idx file (.idx, or named like train-images-idx3-ubyte, also with .gz)",
        is_array_file,
        open_array_source,
    ),
)


def open_source(path: Path) -> Source:
    """Open the source at `path`. The first row of `SOURCE_KINDS` that matches opens it.

    Raises:
        BadSource: The path does not exist, matches no kind, or is damaged or empty.
    """
    if not path.exists():
        raise BadSource(f"source {str(path)!r} does not exist")
    for kind in SOURCE_KINDS:
        if kind.matches(path):
            return kind.open(path)
    known = ", or ".join(kind.description for kind in SOURCE_KINDS)
    raise BadSource(f"{path.name} is not a source: give {known}")
