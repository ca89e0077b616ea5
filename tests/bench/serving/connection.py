"""One caller's connection: it sends a request that was made beforehand, waits for the reply, and repeats."""

import socket
import struct
from typing import Protocol

__all__ = ["RECEIVE_BYTES", "TIMEOUT_S", "CallFailed", "Connection", "open_socket", "receive"]

TIMEOUT_S = 60.0
RECEIVE_BYTES = 1 << 18


class CallFailed(Exception):
    """The server refused the call."""


class Connection(Protocol):
    """A connection of one caller."""

    def call(self) -> None:
        """Send the request and wait for its reply.

        Raises:
            CallFailed: The reply is an error. The connection can be used again.
            OSError: The connection ended, or the reply did not come in time.
        """

    def renew(self) -> None:
        """Connect again if the server has closed the connection because it was idle."""

    def close(self) -> None:
        """End the connection."""


def open_socket(target: str) -> socket.socket:
    """Return a socket that is connected to HOST:PORT and waits so many seconds for data."""
    host, _, port = target.rpartition(":")
    opened = socket.create_connection((host, int(port)), timeout=TIMEOUT_S)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # A timeout of Python's own would cost a poll() before every read.
    opened.settimeout(None)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(TIMEOUT_S), 0))
    return opened


def receive(connected: socket.socket) -> bytes:
    """Return the bytes that have arrived, or wait for some.

    Raises:
        OSError: The other side has closed the connection, or nothing came in time.
    """
    data = connected.recv(RECEIVE_BYTES)
    if not data:
        raise ConnectionResetError("the server closed the connection")
    return data
