"""The sockets that this process has open. gRPC's API for Python does not give them; the system does."""

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

__all__ = ["INTERNET", "open_connections", "peer_of"]

INTERNET = (socket.AF_INET, socket.AF_INET6)


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


def peer_of(connection: socket.socket) -> str:
    """Return the address of the peer of a TCP connection as gRPC writes it, such as `ipv4:127.0.0.1:57284`.

    Raises:
        OSError: It has no peer.
    """
    host, port, *_ = connection.getpeername()
    # A socket of IPv6 takes callers of IPv4 too. gRPC writes their addresses as those of IPv4.
    host = host.removeprefix("::ffff:")
    return f"ipv6:%5B{host}%5D:{port}" if ":" in host else f"ipv4:{host}:{port}"
