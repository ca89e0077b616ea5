"""The end of a caller's connection, where gRPC's API for Python has none."""

import os
import socket
from collections.abc import Set
from contextlib import suppress
from pathlib import Path

__all__ = ["hang_up"]

_INTERNET = (socket.AF_INET, socket.AF_INET6)


def hang_up(peers: Set[str]) -> None:
    """Close the connections of callers. Their calls end as UNAVAILABLE, and gRPC frees their memory.

    Args:
        peers: Addresses of callers as gRPC writes them, such as `ipv4:127.0.0.1:57284`. Those that are not
            connected are left out.
    """
    for file in Path("/proc/self/fd").iterdir():
        # The file may be closed meanwhile, and another one opened under its number.
        with suppress(OSError):
            if file.readlink().name.startswith("socket:"):
                _hang_up_if(int(file.name), peers)


def _hang_up_if(number: int, peers: Set[str]) -> None:
    # A copy: the file itself belongs to gRPC.
    copy = os.dup(number)
    try:
        connection = socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        raise
    with connection:
        if connection.family in _INTERNET and _peer_of(connection) in peers:
            connection.shutdown(socket.SHUT_RDWR)


def _peer_of(connection: socket.socket) -> str:
    host, port, *_ = connection.getpeername()
    # A socket of IPv6 takes callers of IPv4 too. gRPC writes their addresses as those of IPv4.
    host = host.removeprefix("::ffff:")
    return f"ipv6:%5B{host}%5D:{port}" if ":" in host else f"ipv4:{host}:{port}"
