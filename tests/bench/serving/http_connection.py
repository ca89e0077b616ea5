"""HTTP/1.1 as far as a caller of one request needs it."""

import re
import socket
from contextlib import suppress

from bench.serving.connection import CallFailed, open_socket, receive
from bench.serving.request import Request

__all__ = ["HttpConnection"]

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class HttpConnection:
    """POST requests, one after the other, over one HTTP/1.1 connection."""

    def __init__(self, target: str, request: Request) -> None:
        self._target = target
        self._socket = open_socket(target)
        head = (
            f"POST {request.path} HTTP/1.1\r\nHost: {target}\r\nContent-Type: {request.content_type}\r\n"
            f"Content-Length: {len(request.body)}\r\nUser-Agent: http-bench\r\nAccept: */*\r\n\r\n"
        )
        self._request = head.encode() + request.body

    def call(self) -> None:
        """Send the request and wait for its reply."""
        self._socket.sendall(self._request)
        received = b""
        while (end := received.find(b"\r\n\r\n")) < 0:
            received += receive(self._socket)
        found = _LENGTH.search(received, 0, end)
        if found is None:
            raise CallFailed(f"a reply without a length: {received[:end]!r}")
        left = int(found[1]) - (len(received) - end - 4)
        while left > 0:
            left -= len(receive(self._socket))
        if received[9:12] != b"200":
            raise CallFailed(received[: end + 300].decode(errors="replace"))

    def renew(self) -> None:
        """Connect again if the server has closed the connection because it was idle."""
        with suppress(BlockingIOError):
            if not self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                self._socket.close()
                self._socket = open_socket(self._target)

    def close(self) -> None:
        """End the connection."""
        self._socket.close()
