"""The bytes that callers have sent and received. The system tells them for each connection; gRPC does not."""

import socket
import struct
from collections import Counter
from collections.abc import Iterator, Set
from contextlib import suppress

from convvae_service.server.open_connections import INTERNET, open_connections, peer_of

__all__ = ["acknowledged_bytes", "received_bytes"]

# `tcpi_bytes_acked` and `tcpi_bytes_received` of Linux's `struct tcp_info`.
_BYTES = struct.Struct("=120xQQ")


def acknowledged_bytes(ports: Set[object]) -> int:
    """Return how many bytes the peers have acknowledged on all open connections to these local ports.

    It is 0 where the system does not say, as for Unix sockets.
    """
    return sum(acknowledged for _, acknowledged, _ in _connections(ports))


def received_bytes(ports: Set[object]) -> Counter[str]:
    """Return how many bytes each peer has sent on its open connection to one of these local ports.

    Peers are addresses as gRPC writes them. There are none where the system does not say.
    """
    return Counter({peer: received for peer, _, received in _connections(ports)})


def _connections(ports: Set[object]) -> Iterator[tuple[str, int, int]]:
    """Yield the peer of each connection, with the bytes that it has acknowledged and sent."""
    for connection in open_connections():
        # A socket that listens has no peer, and a connection may end meanwhile.
        with suppress(OSError):
            if (
                connection.family not in INTERNET
                or connection.type != socket.SOCK_STREAM
                or connection.getsockname()[1] not in ports
            ):
                continue
            peer = peer_of(connection)
            info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES.size)
            # Older systems tell less.
            if len(info) == _BYTES.size:
                yield peer, *_BYTES.unpack(info)
