"""The lock of a run folder: one process at a time writes in it.

The lock is the file `.lock` in the folder, with an flock on it that ends with the process. The file says who
holds it. On a file system without flock, the process that the file names decides.
"""

import datetime
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from convvae_trainer.errors import BadRun

__all__ = ["LOCK_FILE", "RunLock", "check_unlocked", "has_orphans", "locked"]

LOCK_FILE = ".lock"
# A process writes its name into the file right after it has the lock.
_NAME_WITHIN_S = 1.0
_POLL_S = 0.05
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, kw_only=True, slots=True)
class Holder:
    """The process that holds a lock.

    `process_start` distinguishes it from later processes with the same pid, also after a reboot; it is ""
    if the system has no /proc. `folder`, and `inode` of the lock file, distinguish the lock from a copy.
    """

    host: str
    pid: int
    process_start: str
    since: str
    folder: str
    inode: int

    @classmethod
    def this_process(cls, path: Path, handle: int) -> Self:
        """Return this process as the holder of the lock file `path`, which is open as `handle`."""
        return cls(
            host=socket.gethostname(),
            pid=os.getpid(),
            process_start=_process_start(os.getpid()),
            since=datetime.datetime.now().astimezone().isoformat(sep=" ", timespec="seconds"),
            folder=ascii(str(path.parent.resolve())),
            inode=os.fstat(handle).st_ino,
        )

    @classmethod
    def read(cls, handle: int) -> Self | None:
        """Return the holder that an open lock file names, or None if it names none."""
        try:
            return cls(**json.loads(os.pread(handle, 4096, 0)))
        except (ValueError, TypeError):
            return None

    @property
    def is_here(self) -> bool:
        """Whether the process runs or ran on this machine."""
        return self.host == socket.gethostname()

    @property
    def has_ended(self) -> bool:
        """Whether the process is known to have ended."""
        return self.is_here and _process_start(self.pid) != self.process_start

    def is_of(self, path: Path, handle: int) -> bool:
        """Return whether the lock file still is where and what the holder made, and not a copy."""
        return self.folder == ascii(str(path.parent.resolve())) or self.inode == os.fstat(handle).st_ino

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


class RunLock:
    """A lock that this process holds. Use `locked` to get one."""

    def __init__(self, path: Path, handle: int) -> None:
        self._path = path
        self._handle = handle
        self._folder = path.parent.stat()

    @property
    def handle(self) -> int:
        """The open lock file. A child process that inherits it holds the lock too, until both have ended."""
        return self._handle

    @property
    def is_in_place(self) -> bool:
        """Whether the folder is still the one that was locked, and no other process has locked it since.

        Both can happen when someone removes the folder, or the lock file in it.
        """
        try:
            is_folder = os.path.samestat(self._path.parent.stat(), self._folder)
        except OSError:
            return False
        return is_folder and (not self._path.exists() or _is_open_file(self._path, self._handle))

    def check_in_place(self) -> None:
        """Raise OSError if `is_in_place` is false: the files in the folder are not those of this process."""
        if not self.is_in_place:
            raise OSError(errno.ESTALE, "the folder was removed, or another process uses it")

    def release(self) -> None:
        """Remove the lock."""
        if _is_open_file(self._path, self._handle):
            with suppress(OSError):
                self._path.unlink()
        os.close(self._handle)


@contextmanager
def locked(folder: Path, *, wait_s: float = 0.0) -> Iterator[RunLock]:
    """Hold the lock of a run folder in the block.

    Args:
        folder: The run folder, which exists.
        wait_s: How long to wait for another process, in seconds.

    Raises:
        BadRun: Another process holds the lock; the message names it.
        OSError: The lock file cannot be written.
    """
    until = time.monotonic() + wait_s
    while True:
        try:
            lock = _acquire(folder)
            break
        except BadRun:
            if time.monotonic() >= until:
                raise
            time.sleep(_POLL_S)
    try:
        yield lock
    finally:
        lock.release()


def check_unlocked(folder: Path) -> None:
    """Raise `BadRun` if another process holds the lock of `folder`. This makes no file and takes no lock."""
    path = folder / LOCK_FILE
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not _flock(path, handle):
            _refuse_the_holder(path, handle)
    finally:
        os.close(handle)


def has_orphans(folder: Path) -> bool:
    """Return whether the lock of `folder` is held by child processes alone, after the holder was killed."""
    path = folder / LOCK_FILE
    try:
        check_unlocked(folder)
    except BadRun:
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            holder = Holder.read(handle)
        finally:
            os.close(handle)
        return holder is not None and holder.has_ended
    return False


def _acquire(folder: Path) -> RunLock:
    path = folder / LOCK_FILE
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            has_flock = _flock(path, handle)
            if not has_flock:
                _refuse_the_holder(path, handle)
            # A process that has just ended may have removed the file.
            if _is_open_file(path, handle):
                _write_holder(path, handle, has_flock=has_flock)
                return RunLock(path, handle)
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _flock(path: Path, handle: int) -> bool:
    """Take the flock of an open lock file. Return False if the file system has none.

    Raises:
        BadRun: Another process has it.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _in_use(path, _named_holder(handle)) from None
    except OSError:
        return False
    return True


def _named_holder(handle: int) -> Holder | None:
    until = time.monotonic() + _NAME_WITHIN_S
    while (holder := Holder.read(handle)) is None and time.monotonic() < until:
        time.sleep(_POLL_S)
    return holder


def _refuse_the_holder(path: Path, handle: int) -> None:
    """Raise `BadRun` if the process that a lock file names may still run. Only for files without flock."""
    holder = Holder.read(handle)
    if holder is None or holder.has_ended or not holder.is_of(path, handle):
        return
    if holder.is_here:
        raise _in_use(path, holder)
    raise BadRun(
        f"folder {path.parent} is in use by {holder}, or was when that process was killed:"
        f" if it has ended, remove {path}"
    )


def _in_use(path: Path, holder: Holder | None) -> BadRun:
    advice = "wait until it ends, or use another folder"
    if holder is None:
        return BadRun(f"folder {path.parent} is in use by another process: {advice}")
    where = "" if holder.is_here else f" on {holder.host}"
    return BadRun(
        f"folder {path.parent} is in use by {holder}: {advice}, or stop it{where} with kill {holder.pid}"
    )


def _write_holder(path: Path, handle: int, *, has_flock: bool) -> None:
    holder = Holder.this_process(path, handle)
    os.ftruncate(handle, 0)
    os.pwrite(handle, json.dumps(asdict(holder)).encode(), 0)
    if not has_flock:
        # Two processes may have found the file free at once: the last one to write has it.
        time.sleep(4 * _POLL_S)
        if (last := Holder.read(handle)) != holder:
            raise _in_use(path, last)


def _is_open_file(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except OSError:
        return False


def _process_start(pid: int) -> str:
    """Return the boot and the clock tick at which a process started; "" if there is no such process."""
    try:
        boot = _BOOT_ID.read_text().strip()
        # The name of the program, in brackets, may itself contain brackets and spaces.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return ""
    # A process that has ended stays as a zombie until its parent has noticed.
    return "" if fields[0] in (b"Z", b"X") else f"{boot} {fields[19].decode()}"
