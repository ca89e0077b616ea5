"""The sockets that this process has open. gRPC's API for Python does not give them; the system does."""

import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

__all__ = ["INTERNET", "open_connections", "peer_of"]

INTERNET = (socket.AF_INET, socket.AF_INET6)


def open_connections() -> Iterator[socket.socket]:
    """Yield the open sockets of this process, one after another. Use each in its turn only.

    They are gRPC's own, and stay open. Copies would stay in gRPC's `epoll` when gRPC has closed its own, and
    an event of one would end the process. There are none where the system does not list open files.
    """
    with suppress(OSError):
        for file in Path("/proc/self/fd").iterdir():
            # Another thread may close the file meanwhile, and not every file is a socket.
            with suppress(OSError):
                connection = socket.socket(fileno=int(file.name))
                try:
                    yield connection
                finally:
                    connection.detach()


def peer_of(connection: socket.socket) -> str:
    """Return the address of the peer of a TCP connection as gRPC writes it, such as `ipv4:127.0.0.1:57284`.

    Raises:
        OSError: It has no peer.
    """
    host, port, *_ = connection.getpeername()
    # A socket of IPv6 takes callers of IPv4 too. gRPC writes their addresses as those of IPv4.
    host = host.removeprefix("::ffff:")
    return f"ipv6:%5B{host}%5D:{port}" if ":" in host else f"ipv4:{host}:{port}"
