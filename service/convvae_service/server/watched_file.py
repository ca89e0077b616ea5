"""Files that are read again when they change, such as certificates that are renewed while the server runs."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from convvae_service.observability.logs import facts

__all__ = ["WatchedFile"]

T = TypeVar("T")
_log = logging.getLogger(__name__)


class WatchedFile(Generic[T]):
    """What `parse` makes of some files together, made anew when one of them changes.

    Args:
        paths: The files.
        parse: Turns their contents, in order, into the value; raises ValueError for what it does not accept.
    """

    def __init__(self, paths: tuple[Path, ...], parse: Callable[[tuple[bytes, ...]], T]) -> None:
        self._paths = paths
        self._parse = parse
        self._stamp: tuple[tuple[int, int, int], ...] = ()
        self._value: T | None = None

    def load(self) -> T:
        """Read the files.

        Raises:
            OSError: A file cannot be read.
            ValueError: `parse` does not accept them.
        """
        self._stamp = self._look()
        self._value = self._parse(tuple(path.read_bytes() for path in self._paths))
        return self._value

    def current(self) -> T:
        """Return the value, read again if a file has changed; what cannot be used is logged, and left."""
        assert self._value is not None
        if self._look() != self._stamp:
            names = [path.name for path in self._paths]
            try:
                self.load()
                _log.info("files read again", extra=facts(files=names))
            except (OSError, ValueError) as error:
                _log.error(
                    "changed files cannot be used, the old content stays",
                    extra=facts(files=names, error=str(error)),
                )
        return self._value

    def _look(self) -> tuple[tuple[int, int, int], ...]:
        """Return what tells one state of the files from another; empty while one is missing."""
        try:
            stats = [path.stat() for path in self._paths]
        except OSError:
            return ()
        return tuple((stat.st_mtime_ns, stat.st_size, stat.st_ino) for stat in stats)
