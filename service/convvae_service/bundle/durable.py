"""Names that last: folders are flushed to their disk, as far as the disk can do that."""

import errno
import os
from pathlib import Path

__all__ = ["sync_folder"]

# Some shares and FUSE file systems refuse to flush a folder, each with an error of its own.
_REFUSALS = (
    errno.EINVAL,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
    errno.EPERM,
    errno.EACCES,
    errno.EBADF,
    errno.ENOTTY,
)


def sync_folder(folder: Path) -> None:
    """Make the names of the files in `folder` durable. Nothing happens on a file system that cannot do this.

    Raises:
        OSError: The disk fails.
    """
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
