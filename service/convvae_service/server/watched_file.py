"""Files that are read again while the server runs, such as renewed certificates."""

import errno
import logging
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

from convvae_service.observability.logs import facts

__all__ = ["WatchedFile"]

T = TypeVar("T")
_Contents: TypeAlias = tuple[bytes, ...]
# New contents count when they have stayed the same for this time: a file may be written in several steps.
_MAX_PAUSE_S = 2.0
# The same for a file that is empty, or whose last line has no end. It looks half-written.
_MAX_PAUSE_IN_LINE_S = 4.0
# Contents that cannot be used are tried again after this time: a certificate may become valid.
_RETRY_S = 10.0
_MAX_BYTES = 16 * 2**20
_log = logging.getLogger(__name__)


class WatchedFile(Generic[T]):
    """A value that is parsed from files and follows their contents. Any thread may read it.

    Contents are compared, and not times, sizes or inodes: a file may be renamed over, written in place,
    mounted, or become readable. If the new contents cannot be read or used, the old value stays. The log says
    so once, and once more when they can.

    Args:
        paths: The files. A pipe, as of `<(command)` in a shell, is read once.
        parse: Turns their contents, in this order, into the value. It raises ValueError for invalid contents.
        clock: Returns the time in seconds.
    """

    def __init__(
        self,
        paths: tuple[Path, ...],
        parse: Callable[[_Contents], T],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read the files.

        Raises:
            OSError: A file cannot be read.
            ValueError: The contents are invalid.
        """
        self._paths = paths
        self._parse = parse
        self._clock = clock
        read = [_read_first(path) for path in paths]
        self._contents = tuple(content for content, _ in read)
        self._is_followed = tuple(is_regular for _, is_regular in read)
        self.value = parse(self._contents)
        self._seen = self._contents
        self._seen_since_s = clock()
        self._fault = ""

    def look(self) -> None:
        """Read the files, and use what has changed. One thread calls this again and again."""
        try:
            contents = self._read_again()
        except (OSError, ValueError) as error:
            self._seen = ()
            self._report(str(error))
            return
        now_s = self._clock()
        if contents != self._seen:
            self._seen, self._seen_since_s = contents, now_s
        if contents == self._contents:
            self._report("")
        elif now_s - self._seen_since_s >= _max_pause_s(contents):
            self._use(contents)

    def _use(self, contents: _Contents) -> None:
        try:
            self.value = self._parse(contents)
        except ValueError as error:
            self._seen_since_s = self._clock() + _RETRY_S - _max_pause_s(contents)
            self._report(str(error))
            return
        self._contents = contents
        self._fault = ""
        _log.info("files read again", extra=facts(files=self._names))

    def _report(self, fault: str) -> None:
        """Log the fault of the files, empty if they have none, unless it is known."""
        if fault == self._fault:
            return
        self._fault = fault
        if fault:
            _log.error(
                "changed files cannot be used: the old content stays",
                extra=facts(files=self._names, error=fault),
            )
        else:
            _log.info("files are as they were", extra=facts(files=self._names))

    @property
    def _names(self) -> list[str]:
        return [path.name for path in self._paths]

    def _read_again(self) -> _Contents:
        return tuple(
            _read_regular(path) if is_followed else old
            for path, is_followed, old in zip(self._paths, self._is_followed, self._contents, strict=True)
        )


def _max_pause_s(contents: _Contents) -> float:
    ended = all(content.endswith(b"\n") for content in contents)
    return _MAX_PAUSE_S if ended else _MAX_PAUSE_IN_LINE_S


def _read_first(path: Path) -> tuple[bytes, bool]:
    """Return the content of a file or pipe, and whether it is a regular file."""
    with path.open("rb", buffering=0) as file:
        return _content(file.fileno(), path), stat.S_ISREG(os.fstat(file.fileno()).st_mode)


def _read_regular(path: Path) -> bytes:
    """Return the content of a regular file. A pipe would wait for its writer."""
    opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            raise OSError(errno.EINVAL, "Not a regular file", str(path))
        return _content(opened, path)
    finally:
        os.close(opened)


def _content(opened: int, path: Path) -> bytes:
    content = b""
    while part := os.read(opened, _MAX_BYTES + 1 - len(content)):
        content += part
        if len(content) > _MAX_BYTES:
            raise ValueError(f"{str(path)!r} is larger than {_MAX_BYTES} bytes")
    return content
