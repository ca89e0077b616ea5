"""Files that are read again when they change, such as renewed certificates."""

import logging
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

from convvae_service.observability.logs import facts

__all__ = ["WatchedFile"]

T = TypeVar("T")
_Stamp: TypeAlias = tuple[tuple[int, ...], ...]
_log = logging.getLogger(__name__)


class WatchedFile(Generic[T]):
    """A value that is parsed from files, and parsed again when one of them changes. Any thread may read it.

    Args:
        paths: The files.
        parse: Turns their contents, in this order, into the value. It raises ValueError for invalid contents.
    """

    def __init__(self, paths: tuple[Path, ...], parse: Callable[[tuple[bytes, ...]], T]) -> None:
        self._paths = paths
        self._parse = parse
        # Together, so that no thread sees a new stamp with an old value.
        self._loaded: tuple[_Stamp, T] | None = None
        self._lock = threading.Lock()

    def load(self) -> T:
        """Read the files.

        Raises:
            OSError: A file cannot be read.
            ValueError: The contents are invalid.
        """
        stamp = self._take_stamp()
        value = self._read()
        self._loaded = (stamp, value)
        return value

    def current(self) -> T:
        """Return the value. Changed files are read first; if they are invalid, the old value stays."""
        assert self._loaded is not None
        stamp, value = self._loaded
        if self._take_stamp() == stamp:
            return value
        with self._lock:
            # Another thread may have read them meanwhile.
            read_stamp, value = self._loaded
            if (stamp := self._take_stamp()) != read_stamp:
                value = self._read_again(value)
                self._loaded = (stamp, value)
        return value

    def _read_again(self, old: T) -> T:
        names = [path.name for path in self._paths]
        try:
            value = self._read()
        except (OSError, ValueError) as error:
            _log.error(
                "changed files cannot be used: the old content stays",
                extra=facts(files=names, error=str(error)),
            )
            return old
        _log.info("files read again", extra=facts(files=names))
        return value

    def _read(self) -> T:
        return self._parse(tuple(path.read_bytes() for path in self._paths))

    def _take_stamp(self) -> _Stamp:
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
