"""Tar archives made of names and contents."""

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path


def write_tar(
    path: Path, members: Iterable[tuple[str, bytes]], *, form: int = tarfile.USTAR_FORMAT, mtime: float = 0
) -> Path:
    """Write the members in order, and return the path."""
    with tarfile.open(path, "w", format=form) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), mtime
            archive.addfile(info, io.BytesIO(data))
    return path
