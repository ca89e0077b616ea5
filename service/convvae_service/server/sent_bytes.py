"""The bytes that callers have received. gRPC does not tell them: the system does, for each connection."""

import contextlib
import os
import socket
import stat
import struct
from collections.abc import Set
from pathlib import Path

__all__ = ["acknowledged_bytes"]

# `tcpi_bytes_acked` of Linux's `struct tcp_info`.
_BYTES_ACKED = struct.Struct("=120xQ")


def acknowledged_bytes(ports: Set[object]) -> int:
    """Return how many bytes the peers have acknowledged on all open connections to these local ports.

    It is 0 where the system does not say, as for Unix sockets.
    """
    total = 0
    with contextlib.suppress(OSError):
        for file in Path("/proc/self/fd").iterdir():
            # Another thread may close the file, and not every file is a socket.
            with contextlib.suppress(OSError):
                total += _acknowledged(int(file.name), ports)
    return total


def _acknowledged(file: int, ports: Set[object]) -> int:
    # A copy: the end of a socket object closes its file.
    copy = os.dup(file)
    if not stat.S_ISSOCK(os.fstat(copy).st_mode):
        os.close(copy)
        return 0
    with socket.socket(fileno=copy) as connection:
        if (
            connection.family not in (socket.AF_INET, socket.AF_INET6)
            or connection.type != socket.SOCK_STREAM
        ):
            return 0
        if connection.getsockname()[1] not in ports:
            return 0
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED.size)
    # Older systems tell less.
    return int(_BYTES_ACKED.unpack(info)[0]) if len(info) == _BYTES_ACKED.size else 0
