"""The bytes that callers take. gRPC does not tell them: the system does, for each connection."""

import fcntl
import socket
import struct
import termios
from collections.abc import Set
from contextlib import suppress

from convvae_service.server.local_ends import LocalEnd, local_end
from convvae_service.server.open_connections import open_connections

__all__ = ["taken_bytes"]

# `tcpi_bytes_acked` of Linux's `struct tcp_info`.
_BYTES_ACKED = struct.Struct("=120xQ")
_INT = struct.Struct("=i")


def taken_bytes(ends: Set[LocalEnd]) -> int:
    """Return a number that changes whenever a peer takes bytes on an open connection to one of these ends.

    It is 0 where the system does not say.
    """
    total = 0
    for connection in open_connections():
        with suppress(OSError):
            if local_end(connection) in ends:
                total += _taken(connection)
    return total


def _taken(connection: socket.socket) -> int:
    if connection.family == socket.AF_UNIX:
        # The bytes that wait there. They become fewer when the peer reads.
        (waiting,) = _INT.unpack(fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(_INT.size)))
        return -int(waiting)
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED.size)
    # Older systems tell less.
    return int(_BYTES_ACKED.unpack(info)[0]) if len(info) == _BYTES_ACKED.size else 0
