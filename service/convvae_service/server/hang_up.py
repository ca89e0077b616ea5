"""The end of a caller's connection, where gRPC's API for Python has none."""

import socket
from collections.abc import Set
from contextlib import suppress

from convvae_service.server.local_addresses import LocalEnd
from convvae_service.server.open_connections import INTERNET, open_connections, peer_of

__all__ = ["end_all_but", "hang_up"]


def hang_up(peers: Set[str]) -> None:
    """Close the connections of callers. Their calls end as UNAVAILABLE, and gRPC frees their memory.

    Args:
        peers: Addresses of callers as gRPC writes them, such as `ipv4:127.0.0.1:57284`. Those that are not
            connected are left out.
    """
    for connection in open_connections():
        # A socket that listens has no peer.
        with suppress(OSError):
            if connection.family in INTERNET and peer_of(connection) in peers:
                connection.shutdown(socket.SHUT_RDWR)


def end_all_but(peers: Set[str], ends: Set[LocalEnd]) -> None:
    """Send nothing more to the callers at these ends, except to some. What is sent already still arrives.

    Their calls that have no answer end as UNAVAILABLE.

    Args:
        peers: Addresses of the callers that are left alone, as for `hang_up`.
        ends: The server's ends of the connections.
    """
    for connection in open_connections():
        with suppress(OSError):
            if (
                connection.family in INTERNET
                and connection.getsockname()[1] in ends
                and peer_of(connection) not in peers
            ):
                connection.shutdown(socket.SHUT_WR)
