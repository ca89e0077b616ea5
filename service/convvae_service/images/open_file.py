"""A file that several threads read by position."""

import os

__all__ = ["OpenFile"]


class OpenFile:
    """A descriptor that is closed when nobody refers to it any more."""

    def __init__(self, handle: int) -> None:
        self.handle = handle

    @property
    def size(self) -> int:
        """Its size now, in bytes."""
        return os.fstat(self.handle).st_size

    def read(self, count: int, start: int) -> bytes:
        """Return `count` bytes from `start` on, or fewer at the end of the file."""
        data = os.pread(self.handle, count, start)
        while len(data) < count and (more := os.pread(self.handle, count - len(data), start + len(data))):
            data += more
        return data

    def __del__(self) -> None:
        os.close(self.handle)
