"""Files that are read again when they change, such as renewed certificates."""

import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from convvae_service.observability.logs import facts

__all__ = ["WatchedFile"]

T = TypeVar("T")
_log = logging.getLogger(__name__)


class WatchedFile(Generic[T]):
    """A value that is parsed from files, and parsed again when one of them changes.

    Args:
        paths: The files.
        parse: Turns their contents, in this order, into the value. It raises ValueError for invalid contents.
    """

    def __init__(self, paths: tuple[Path, ...], parse: Callable[[tuple[bytes, ...]], T]) -> None:
        self._paths = paths
        self._parse = parse
        self._stamp: tuple[tuple[int, ...], ...] = ()
        self._value: T | None = None

    def load(self) -> T:
        """Read the files.

        Raises:
            OSError: A file cannot be read.
            ValueError: The contents are invalid.
        """
        self._stamp = self._take_stamp()
        self._value = self._parse(tuple(path.read_bytes() for path in self._paths))
        return self._value

    def current(self) -> T:
        """Return the value. Changed files are read first; if they are invalid, the old value stays."""
        assert self._value is not None
        if self._take_stamp() != self._stamp:
            names = [path.name for path in self._paths]
            try:
                self.load()
                _log.info("files read again", extra=facts(files=names))
            except (OSError, ValueError) as error:
                _log.error(
                    "changed files cannot be used: the old content stays",
                    extra=facts(files=names, error=str(error)),
                )
        return self._value

    def _take_stamp(self) -> tuple[tuple[int, ...], ...]:
        """Return a stamp of the files that differs when one changes; empty while one is missing."""
        try:
            stats = [path.stat() for path in self._paths]
        except OSError:
            return ()
        return tuple(_stamp(found) for found in stats)


def _stamp(found: os.stat_result) -> tuple[int, ...]:
    if not stat.S_ISREG(found.st_mode):
        # A pipe, as of `<(command)` in a shell, is read once: it would wait for ever at the second time.
        return (found.st_ino,)
    # The time of the last change of its rights counts too: a file may become readable.
    return (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)
