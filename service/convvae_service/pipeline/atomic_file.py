"""A file that appears under its name only when it is complete."""

import fcntl
import os
import re
import secrets
from pathlib import Path

from convvae_service.bundle import sync_folder
from convvae_service.pipeline.errors import BadSink, RunFailed
from convvae_service.pipeline.signals import ignore_first_signal

__all__ = ["AtomicFile"]


class AtomicFile:
    """A hidden temporary file beside `target`, `.NAME.<random>.unfinished`, that `publish` renames.

    The writer holds a lock on it. So the next run can distinguish the file of a killed run, which it removes,
    from the file of another run in progress.

    Args:
        target: The final path.
        overwrite: Whether `publish` may replace an existing file.

    Raises:
        BadSink: The folder is not writable.
    """

    def __init__(self, target: Path, *, overwrite: bool) -> None:
        self._target = target
        self._overwrite = overwrite
        try:
            _remove_leftovers(target)
            self.path, self._handle = _create(target)
        except OSError as error:
            raise BadSink(f"cannot write in {str(target.parent)!r}: {error.strerror}") from None

    def sync(self) -> None:
        """Make what is written durable, under the temporary name."""
        os.fsync(self._handle)

    def publish(self, *, ends_run: bool = True) -> int:
        """Make the file durable and visible under its name. Return its size in bytes.

        Args:
            ends_run: Whether the run is complete with this file, so that a signal has no effect any more.

        Raises:
            RunFailed: Another file has that name by now, and may not be replaced.
        """
        self.sync()
        size = os.fstat(self._handle).st_size
        if ends_run:
            # The rename cannot be undone.
            ignore_first_signal()
        if self._overwrite:
            self.path.replace(self._target)
        else:
            self._rename_without_overwriting()
        self._sync_folder()
        return size

    def _sync_folder(self) -> None:
        """Make the new name durable, where the disk can do so for folders."""
        try:
            sync_folder(self._target.parent)
        except OSError as error:
            raise RunFailed(
                f"{str(self._target)!r} is complete, but a power failure may remove it: its folder cannot"
                f" be synced: {error.strerror}"
            ) from None

    def _rename_without_overwriting(self) -> None:
        try:
            # A hard link fails if the target exists. A rename would replace the file of another process.
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
        raise RunFailed(f"{str(self._target)!r} was created by another program during the run and was kept")

    def withdraw(self) -> None:
        """Remove the published file again, unless it may have replaced another."""
        if not self._overwrite:
            self._target.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the file if it is not published, and release the lock. It may be called again."""
        self.path.unlink(missing_ok=True)
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def _create(target: Path) -> tuple[Path, int]:
    while True:
        path = target.parent / f".{target.name}.{secrets.token_hex(6)}.unfinished"
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        _lock(handle)
        # Another run may have removed it as a leftover before it was locked.
        if path.exists():
            return path, handle
        os.close(handle)


def _remove_leftovers(target: Path) -> None:
    """Remove the unfinished files of `target` that no process holds a lock on."""
    pattern = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{12}}\.unfinished")
    for path in target.parent.iterdir():
        if pattern.fullmatch(path.name) and path.is_file() and not path.is_symlink():
            try:
                handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            except OSError:  # already removed, or owned by another user
                continue
            try:
                if _lock(handle):
                    path.unlink()
            except OSError:
                continue
            finally:
                os.close(handle)


def _lock(handle: int) -> bool:
    """Lock the file for this process. Return whether the lock was obtained."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # another process holds it, or the file system has no locks
        return False
    return True
