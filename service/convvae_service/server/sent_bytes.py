"""The bytes that callers take. gRPC does not tell them: the system does, for each connection."""

import contextlib
import fcntl
import os
import socket
import stat
import struct
import termios
from collections.abc import Set
from pathlib import Path

from convvae_service.server.local_ends import LocalEnd, local_end

__all__ = ["taken_bytes"]

# `tcpi_bytes_acked` of Linux's `struct tcp_info`.
_BYTES_ACKED = struct.Struct("=120xQ")
_INT = struct.Struct("=i")


def taken_bytes(ends: Set[LocalEnd]) -> int:
    """Return a number that changes whenever a peer takes bytes on an open connection to one of these ends.

    It is 0 where the system does not say.
    """
    total = 0
    with contextlib.suppress(OSError):
        for file in Path("/proc/self/fd").iterdir():
            # Another thread may close the file, and not every file is a socket.
            with contextlib.suppress(OSError):
                total += _taken(int(file.name), ends)
    return total


def _taken(file: int, ends: Set[LocalEnd]) -> int:
    # A copy: the end of a socket object closes its file.
    copy = os.dup(file)
    if not stat.S_ISSOCK(os.fstat(copy).st_mode):
        os.close(copy)
        return 0
    with socket.socket(fileno=copy) as connection:
        if local_end(connection) not in ends:
            return 0
        if connection.family == socket.AF_UNIX:
            # The bytes that wait there. They become fewer when the peer reads.
            (waiting,) = _INT.unpack(fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(_INT.size)))
            return -int(waiting)
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED.size)
    # Older systems tell less.
    return int(_BYTES_ACKED.unpack(info)[0]) if len(info) == _BYTES_ACKED.size else 0
