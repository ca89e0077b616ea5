"""The sockets that this process has open. gRPC's API for Python does not give them; the system does."""

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

__all__ = ["open_connections"]


def open_connections() -> Iterator[socket.socket]:
    """Yield the open sockets of this process, one after another. Each is closed after its turn.

    It is a copy: gRPC's own stays open. There are none where the system does not list open files.
    """
    with suppress(OSError):
        for file in Path("/proc/self/fd").iterdir():
            # Another thread may close the file meanwhile, and open another one under its number.
            with suppress(OSError):
                copy = os.dup(int(file.name))
                if not stat.S_ISSOCK(os.fstat(copy).st_mode):
                    os.close(copy)
                    continue
                with socket.socket(fileno=copy) as connection:
                    yield connection
