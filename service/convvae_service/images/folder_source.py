"""A source of the image files in a folder, at any depth, or of the files in a list of paths."""

import hashlib
import os
import stat
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from convvae_service.images.address import is_address, shown_address
from convvae_service.images.file_rows import FileRows
from convvae_service.images.files import LeftOut, file_kind, image_files, left_out_of, read_file
from convvae_service.images.location import Location, read_place
from convvae_service.images.packages import import_package
from convvae_service.images.source import BadSource, Source, SourceOptions
from convvae_service.printable import printable

__all__ = ["FilesShard", "open_folder_source", "open_list_source"]

LABEL = "label"
# Files of a folder that are sources of their own.
_SOURCE_SUFFIXES = (".tar", ".parquet", ".npy", ".npz")


class FilesShard:
    """Files, each read on its own; see `Shard`. The id of a row is the file's path relative to the folder.

    Args:
        name: Name of the folder or list in messages.
        folder: The folder that the paths are relative to, or None for paths as they are.
        paths: The paths.
        options: Whether to keep the label, which is the first folder level, and the limit of pixels.
    """

    def __init__(
        self, name: str, folder: Location | None, paths: Sequence[str], options: SourceOptions
    ) -> None:
        self.name = name
        self._folder = folder
        self._paths = paths
        self._options = options
        self.num_bytes = 0

    @property
    def rows(self) -> int:
        """Number of files."""
        return len(self._paths)

    def stamp(self) -> str:
        """Return a hash of the paths, sizes and times of the files that are there now."""
        if self._folder is None:
            return _hash((path, _state(path)) for path in self._paths)
        if self._folder.path is None:
            return _hash((name, str(state)) for name, state in self._folder.entries(recursive=True))
        folder = str(self._folder.path)
        return _hash((name, _state(f"{folder}/{name}")) for name in image_files(self._folder.path).names)

    def count(self) -> int:
        """Return the number of files."""
        return self.rows

    def open(self, start: int) -> "_FilesCursor":
        """Return a cursor at a file; see `Shard`."""
        return _FilesCursor(self, start)

    def rows_at(self, first: int, count: int) -> FileRows | None:
        """Return some of the files as rows, or None if there are none."""
        paths = self._paths[first : first + count]
        prefix = self._options.prefix
        kept: dict[str, Any] = {LABEL: [_label(path) for path in paths]} if self._options.keep else {}
        folder = self._folder

        max_pixels = self._options.max_pixels

        def content(index: int) -> bytes:
            if folder is not None and folder.path is None:
                return folder.below(paths[index]).read(max_pixels=max_pixels)
            if folder is None:
                return read_place(paths[index], max_pixels=max_pixels)
            return read_file(f"{folder.path}/{paths[index]}", max_pixels=max_pixels)

        ids = [f"{prefix}{path}" for path in paths] if prefix else paths
        return FileRows(ids, content, max_pixels, kept) if paths else None


class _FilesCursor:
    left_out: Mapping[str, int] = {}

    def __init__(self, shard: FilesShard, start: int) -> None:
        self._shard = shard
        self._next = start

    @property
    def fraction(self) -> float:
        """The part of the files that was taken."""
        return self._next / max(1, self._shard.rows)

    def take(self, count: int) -> FileRows | None:
        """Return the next files; see `Cursor`."""
        rows = self._shard.rows_at(self._next, count)
        self._next += len(rows) if rows is not None else 0
        return rows

    def close(self) -> None:
        """Do nothing: each file is opened on its own."""


def open_folder_source(folder: Location, options: SourceOptions) -> Source:
    """Open the JPEG, PNG and WebP files in a folder, sorted. `image_files` says what is left out.

    The column `label` is the first folder level, or null for files in the folder itself.

    Raises:
        BadSource: The folder has no images, or a folder in it cannot be listed.
    """
    columns = _label_column(options, folder.name)
    if folder.path is None:
        names, left_out = _remote_images(folder)
    else:
        try:
            names, left_out = image_files(folder.path)
        except OSError as error:
            raise BadSource(f"{printable(str(error.filename))} cannot be listed: {error.strerror}") from None
    if not names:
        shown = shown_address(folder.text)
        text = f"no images in {shown!r}: it must contain JPEG, PNG or WebP files"
        others = f"; {left_out}" if left_out.counts else ""
        suffix = next((suffix for suffix in _SOURCE_SUFFIXES if suffix in left_out.counts), "")
        hint = f". Give the files, such as '{shown.rstrip('/')}/*{suffix}'" if suffix else ""
        raise BadSource(f"{text}{others}{hint}")
    shard = FilesShard(folder.name, folder, names, options)
    return Source(name=folder.name, shards=[shard], columns=columns, left_out=left_out)


def _remote_images(folder: Location) -> tuple[list[str], LeftOut]:
    """Return the image files at an address, by the rules of `image_files`."""
    names: list[str] = []
    left_out: Counter[str] = Counter()
    for name, _ in folder.entries(recursive=True):
        *folders, last = name.split("/")
        kind = "hidden" if any(each.startswith(".") for each in folders) else file_kind(last)
        if kind == "image":
            names.append(name)
        else:
            left_out[kind] += 1
    return names, left_out_of(left_out)


def open_list_source(options: SourceOptions) -> Source:
    """Open the files that standard input names, one path a line. The id of a row is its line.

    Raises:
        BadSource: Standard input is closed, has no lines, or has a NUL byte, which no path can have.
    """
    if options.keep:
        raise BadSource("a list of paths on standard input has no columns to keep")
    if sys.stdin is None:
        raise BadSource("standard input is closed: write paths to it, one a line")
    lines = (os.fsdecode(line.rstrip(b"\r\n")) for line in sys.stdin.buffer)
    paths = [line for line in lines if line]
    if not paths:
        raise BadSource("standard input has no paths: write one a line")
    if any("\0" in path for path in paths):
        raise BadSource("standard input has NUL bytes: separate the paths by line breaks")
    shard = FilesShard("stdin", None, paths, replace(options, prefix=""))
    return Source(name="stdin", shards=[shard])


def _label_column(options: SourceOptions, name: str) -> dict[str, Any]:
    unknown = [column for column in options.keep if column != LABEL]
    if unknown:
        raise BadSource(f"{name} has no column {unknown[0]!r} to keep: a folder has {LABEL}")
    return {LABEL: import_package("pyarrow").string()} if options.keep else {}


def _label(path: str) -> str | None:
    parts = PurePosixPath(path).parts
    return printable(parts[0]) if len(parts) > 1 else None


def _state(path: str) -> str:
    if is_address(path):
        return ""  # a request for each would take longer than the run
    try:
        found = os.stat(path)  # noqa: PTH116 - a Path is slower
    except OSError as error:
        return str(error.errno)
    if not stat.S_ISREG(found.st_mode):
        return "not a regular file"
    return f"{found.st_size}-{found.st_mtime_ns}"


def _hash(lines: Iterable[tuple[str, str]]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update("\0".join(line).encode(errors="surrogateescape") + b"\n")
    return digest.hexdigest()
