"""Stamps of a version's files: they tell whether the files have changed."""

import itertools
import os
from pathlib import Path
from typing import TypeAlias

__all__ = ["Stamp", "stamp_of"]

# Name, size in bytes, time of the last change in ns, and mode of each file.
Stamp: TypeAlias = tuple[tuple[str, int, int, int], ...]

_MAX_FILES = 1000


def stamp_of(folder: Path) -> Stamp | None:
    """Return the stamp of the files in a version's folder, or None if they cannot be listed now.

    A folder with very many files has the stamp of the folder.
    """
    try:
        with os.scandir(folder) as entries:
            stats = sorted((entry.name, _stat(entry)) for entry in itertools.islice(entries, _MAX_FILES + 1))
        if len(stats) > _MAX_FILES:
            stats = [("", folder.stat())]
    except OSError:
        return None
    return tuple((name, stat.st_size, stat.st_mtime_ns, stat.st_mode) for name, stat in stats)


def _stat(entry: "os.DirEntry[str]") -> os.stat_result:
    """Return the state of a file, or of the link if it leads nowhere."""
    try:
        return entry.stat()
    except OSError:
        return entry.stat(follow_symlinks=False)
