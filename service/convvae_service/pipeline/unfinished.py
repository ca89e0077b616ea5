"""A file that is invisible until it is whole: written under another name, then renamed."""

import fcntl
import os
import re
import secrets
from pathlib import Path

from convvae_service.pipeline.errors import BadSink, RunFailed
from convvae_service.pipeline.stopping import let_finish

__all__ = ["UnfinishedFile"]


class UnfinishedFile:
    """A new hidden file beside `target`, `.NAME.<random>.unfinished`, that `publish` renames to it.

    Its writer holds a lock on it, so that the next run can tell what a killed one left from what another run
    is writing, and removes the former.

    Args:
        target: What the file is to become.
        overwrite: Whether `publish` may replace a file.

    Raises:
        BadSink: The folder cannot be written to.
    """

    def __init__(self, target: Path, *, overwrite: bool) -> None:
        self._target = target
        self._overwrite = overwrite
        try:
            _remove_leftovers(target)
            self.path, self._handle = _create(target)
        except OSError as error:
            raise BadSink(f"cannot write in {str(target.parent)!r}: {error.strerror}") from None

    def publish(self) -> int:
        """Make the file durable and visible under its name, and return its bytes.

        Raises:
            RunFailed: A file of that name has appeared meanwhile and may not be replaced.
        """
        os.fsync(self._handle)
        size = os.fstat(self._handle).st_size
        # From here on the run is as good as done: a signal would come too late to undo it.
        let_finish()
        if self._overwrite:
            self.path.replace(self._target)
        else:
            self._appear()
        folder = os.open(self._target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return size

    def _appear(self) -> None:
        """Take the target's name, unless something has it."""
        try:
            # A rename would replace what another process has put there since anybody looked.
            os.link(self.path, self._target)
        except FileExistsError:
            pass
        except OSError:
            # This file system has no hard links.
            if not self._target.exists():
                self.path.replace(self._target)
                return
        else:
            self.path.unlink()
            return
        raise RunFailed(f"{str(self._target)!r} has appeared during the run and was left as it is")

    def remove(self) -> None:
        """Remove what was not published, and release the lock. May be called again."""
        self.path.unlink(missing_ok=True)
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def _create(target: Path) -> tuple[Path, int]:
    while True:
        path = target.parent / f".{target.name}.{secrets.token_hex(6)}.unfinished"
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        _lock(handle)
        # Another run may have taken it for a leftover before it was locked.
        if path.exists():
            return path, handle
        os.close(handle)


def _remove_leftovers(target: Path) -> None:
    pattern = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{12}}\.unfinished")
    for path in target.parent.iterdir():
        if pattern.fullmatch(path.name) and path.is_file() and not path.is_symlink():
            try:
                handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            except OSError:  # gone, or another user's
                continue
            try:
                if _lock(handle):
                    path.unlink()
            except OSError:
                continue
            finally:
                os.close(handle)


def _lock(handle: int) -> bool:
    """Lock the file for this process; return whether it is certain that nobody else has it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # another holds it, or this file system has no locks
        return False
    return True
