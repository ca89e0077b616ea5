"""The kinds of sources: a table with one row for each. To add a kind, write its module and add its row."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from convvae_service.images.array_source import open_array_source
from convvae_service.images.arrays import is_array_file
from convvae_service.images.decode import DEFAULT_MAX_PIXELS
from convvae_service.images.folder_source import FolderSource
from convvae_service.images.source import BadSource, Source
from convvae_service.printable import printable

__all__ = ["SOURCE_KINDS", "SourceKind", "open_source"]


@dataclass(frozen=True, slots=True)
class SourceKind:
    """A kind of source.

    Attributes:
        description: Its name in error messages.
        matches: Return whether an existing path is of this kind.
        open: Open the source at a path, with a limit of pixels for its files, or raise `BadSource`.
    """

    description: str
    matches: Callable[[Path], bool]
    open: Callable[[Path, int], Source]


def _open_folder(path: Path, max_pixels: int) -> Source:
    return FolderSource(path, max_pixels=max_pixels)


def _open_array(path: Path, max_pixels: int) -> Source:
    del max_pixels  # arrays are not decoded
    return open_array_source(path)


SOURCE_KINDS: tuple[SourceKind, ...] = (
    SourceKind("a folder of images", Path.is_dir, _open_folder),
    SourceKind(
        "an .npy, .npz or idx file (.idx, or named like train-images-idx3-ubyte, also with .gz)",
        is_array_file,
        _open_array,
    ),
)


def open_source(path: Path, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Source:
    """Open the source at `path`. The first row of `SOURCE_KINDS` that matches opens it.

    Args:
        path: A folder or a file.
        max_pixels: Largest width x height of an image file.

    Raises:
        BadSource: The path does not exist, matches no kind, or is damaged or empty.
    """
    shown = printable(str(path))
    if not path.exists():
        raise BadSource(f"source '{shown}' does not exist")
    # A read of a FIFO or a device might wait for ever.
    if not path.is_dir() and not path.is_file():
        raise BadSource(f"source '{shown}' is not a folder and not a regular file")
    for kind in SOURCE_KINDS:
        if kind.matches(path):
            return kind.open(path, max_pixels)
    known = ", or ".join(kind.description for kind in SOURCE_KINDS)
    raise BadSource(f"{printable(path.name)} is not a source: give {known}")
