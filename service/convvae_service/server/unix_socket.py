"""A listening Unix socket: it replaces a dead one, never a live one, and goes with its server.

It is bound under another name in the same folder, and shown at its path when it takes connections and
has its permissions. So no caller finds it before that, and gRPC, which removes the name that it has bound,
never removes the socket of another server.
"""

import contextlib
import os
import secrets
import socket
import stat
from collections.abc import Callable
from pathlib import Path

__all__ = ["UnixSocket"]

# Device, inode and time of creation of a socket: an inode alone may be used again at once.
_Identity = tuple[int, int, int]


class UnixSocket:
    """A socket at a path.

    Args:
        path: Where callers find it.
        mode: Its permissions, such as 0o660.

    Attributes:
        bound: The path that it was bound to, as the system names the ends of its connections.
    """

    def __init__(self, path: Path, mode: int) -> None:
        self.bound = str(path.with_name(f".{secrets.token_hex(3)}"))
        self._path = path
        self._mode = mode
        self._own: _Identity | None = None

    def open(self, bind: Callable[[str], object]) -> None:
        """Let `bind` listen on a target of gRPC, and show the socket at the path.

        Raises:
            OSError: The path cannot be used; the message says why.
            RuntimeError: `bind` raised it.
        """
        folder = self._path.parent
        if not folder.is_dir():
            raise OSError(f"there is no folder {str(folder)!r}")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise OSError(f"this user may not write to the folder {str(folder)!r}")
        self._remove_dead()
        bind(f"unix:{self.bound}")
        try:
            Path(self.bound).chmod(self._mode)
            self._own = _identity(Path(self.bound))
            os.link(self.bound, self._path)
        except FileExistsError:
            raise _taken() from None
        finally:
            Path(self.bound).unlink()

    def close(self) -> None:
        """Remove the socket from its path, unless another server has taken the path."""
        with contextlib.suppress(OSError):
            if self._own is not None and _identity(self._path) == self._own:
                self._path.unlink()

    def _remove_dead(self) -> None:
        """Remove the socket of a server that has ended.

        Raises:
            OSError: Something else is at the path: a server that listens, or a file.
        """
        try:
            found = self._path.lstat()
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(found.st_mode):
            raise OSError("a file is there that is no socket")
        if self._is_alive():
            raise _taken()
        # Another server may replace it meanwhile: what is moved aside must be what was found.
        aside = Path(f"{self.bound}-")
        self._path.rename(aside)
        if _identity(aside) != _identity_of(found):
            aside.rename(self._path)
            raise _taken()
        aside.unlink()

    def _is_alive(self) -> bool:
        with socket.socket(socket.AF_UNIX) as caller:
            # A server that is busy may not accept for long.
            caller.setblocking(False)
            try:
                caller.connect(str(self._path))
            except ConnectionRefusedError:
                return False
            except BlockingIOError:
                return True
            except PermissionError:
                raise OSError("another user's socket is there") from None
        return True


def _identity(path: Path) -> _Identity:
    return _identity_of(path.lstat())


def _identity_of(found: os.stat_result) -> _Identity:
    return found.st_dev, found.st_ino, found.st_mtime_ns


def _taken() -> OSError:
    return OSError("another program listens there")
