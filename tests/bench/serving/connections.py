"""One caller's connection: it sends a request that was made beforehand, waits for the reply, and repeats.

gRPC and HTTP/1.1 cost the caller about the same, since neither parses more than the end and the status of a
reply. Nothing is shared with the client library or with grpcio.
"""

import base64
import re
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, Self

from support.raw_http2 import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    SETTINGS,
    frame,
    grpc_headers,
    grpc_message,
)

__all__ = ["CallFailed", "Connection", "Request", "connect"]

RST_STREAM, PING, GOAWAY, WINDOW_UPDATE = 3, 6, 7, 8
ACK = 1
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 4, 5
LARGEST_WINDOW = 2**31 - 1
DEFAULT_WINDOW = 65535
# A caller that has received so many bytes gives them back to the server's window.
RETURNED_BYTES = 2**30
TIMEOUT_S = 30.0
RECEIVE_BYTES = 1 << 18
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class CallFailed(Exception):
    """The server refused the call."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request to any server.

    Attributes:
        protocol: `grpc`, or `http` for HTTP/1.1.
        path: Of the method, with its slash.
        body: The message.
        content_type: Of the body; not for gRPC.
    """

    protocol: str
    path: str
    body: bytes
    content_type: str = "application/octet-stream"

    def as_json(self) -> dict[str, str]:
        """Return the request for `from_json`."""
        return {**vars(self), "body": base64.b64encode(self.body).decode()}

    @classmethod
    def from_json(cls, words: dict[str, str]) -> Self:
        """Return the request of `as_json`."""
        return cls(**{**words, "body": base64.b64decode(words["body"])})  # type: ignore[arg-type]


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


def connect(target: str, request: Request) -> Connection:
    """Return a new connection to HOST:PORT."""
    if request.protocol == "grpc":
        return GrpcConnection(target, request)
    return HttpConnection(target, request)


class GrpcConnection:
    """Unary gRPC calls, one after the other, over one HTTP/2 connection (RFC 9113)."""

    def __init__(self, target: str, request: Request) -> None:
        self._socket = _open(target)
        self._received = bytearray()
        metadata = {"grpc-timeout": f"{TIMEOUT_S:.0f}S", "user-agent": "grpc-bench"}
        self._headers = grpc_headers(request.path.removeprefix("/"), metadata)
        self._message = grpc_message(request.body)
        self._window = self._initial_window = DEFAULT_WINDOW
        self._stream_window = 0
        self._frame_bytes = 16384
        self._stream = -1
        self._to_return = 0
        settings = INITIAL_WINDOW_SIZE.to_bytes(2, "big") + LARGEST_WINDOW.to_bytes(4, "big")
        self._socket.sendall(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + frame(SETTINGS, 0, 0, settings)
            + frame(WINDOW_UPDATE, 0, 0, (LARGEST_WINDOW - DEFAULT_WINDOW).to_bytes(4, "big"))
        )

    def call(self) -> None:
        """Send the request and wait for its reply."""
        self._stream += 2
        self._stream_window = self._initial_window
        answered = False
        for sent in self._sending():
            if not sent and self._take_frame() == HEADERS:
                raise CallFailed("refused before the request was sent")
        while (kind := self._take_frame()) != HEADERS:
            answered = answered or kind == DATA
        if not answered:
            raise CallFailed("an error without a reply")

    def renew(self) -> None:
        """Do nothing: servers of gRPC keep idle connections."""

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def _sending(self) -> Iterator[bool]:
        """Send the request; yield whether a part of it could be sent, or the windows are used up."""
        frames = frame(HEADERS, END_HEADERS, self._stream, self._headers)
        position, size = 0, len(self._message)
        while position < size:
            window = min(self._window, self._stream_window)
            if window <= 0:
                if frames:
                    self._socket.sendall(frames)
                    frames = b""
                yield False
                continue
            part = self._message[position : position + min(window, self._frame_bytes)]
            position += len(part)
            self._window -= len(part)
            self._stream_window -= len(part)
            frames += frame(DATA, END_STREAM if position == size else 0, self._stream, part)
        self._socket.sendall(frames)
        yield True

    def _take_frame(self) -> int | None:
        """Handle the next frame; return DATA, HEADERS for the end of the call, or None for any other."""
        while len(self._received) < 9:
            self._receive()
        size = int.from_bytes(self._received[:3], "big")
        while len(self._received) < 9 + size:
            self._receive()
        kind, flags = self._received[3], self._received[4]
        stream = int.from_bytes(self._received[5:9], "big")
        payload = bytes(self._received[9 : 9 + size])
        del self._received[: 9 + size]
        if kind == DATA:
            self._return_window(size)
            return DATA
        if kind == HEADERS:
            return HEADERS if flags & END_STREAM else None
        if kind == WINDOW_UPDATE:
            added = int.from_bytes(payload, "big")
            if stream == 0:
                self._window += added
            elif stream == self._stream:
                self._stream_window += added
        elif kind == SETTINGS and not flags & ACK:
            self._apply(payload)
            self._socket.sendall(frame(SETTINGS, ACK, 0, b""))
        elif kind == PING and not flags & ACK:
            self._socket.sendall(frame(PING, ACK, 0, payload))
        elif kind == GOAWAY or (kind == RST_STREAM and stream == self._stream):
            raise ConnectionResetError(f"the server ended the call: frame {kind}, {payload!r}")
        return None

    def _apply(self, settings: bytes) -> None:
        for start in range(0, len(settings), 6):
            name = int.from_bytes(settings[start : start + 2], "big")
            value = int.from_bytes(settings[start + 2 : start + 6], "big")
            if name == INITIAL_WINDOW_SIZE:
                self._stream_window += value - self._initial_window
                self._initial_window = value
            elif name == MAX_FRAME_SIZE:
                self._frame_bytes = value

    def _return_window(self, size: int) -> None:
        self._to_return += size
        if self._to_return > RETURNED_BYTES:
            self._socket.sendall(frame(WINDOW_UPDATE, 0, 0, self._to_return.to_bytes(4, "big")))
            self._to_return = 0

    def _receive(self) -> None:
        data = self._socket.recv(RECEIVE_BYTES)
        if not data:
            raise ConnectionResetError("the server closed the connection")
        self._received += data


class HttpConnection:
    """POST requests, one after the other, over one HTTP/1.1 connection."""

    def __init__(self, target: str, request: Request) -> None:
        self._target = target
        self._socket = _open(target)
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
            received += self._receive()
        found = _LENGTH.search(received, 0, end)
        if found is None:
            raise CallFailed(f"a reply without a length: {received[:end]!r}")
        left = int(found[1]) - (len(received) - end - 4)
        while left > 0:
            left -= len(self._receive())
        if received[9:12] != b"200":
            raise CallFailed(received[: end + 300].decode(errors="replace"))

    def renew(self) -> None:
        """Connect again if the server has closed the connection because it was idle."""
        with suppress(BlockingIOError):
            if not self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                self._socket.close()
                self._socket = _open(self._target)

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def _receive(self) -> bytes:
        data = self._socket.recv(RECEIVE_BYTES)
        if not data:
            raise ConnectionResetError("the server closed the connection")
        return data


def _open(target: str) -> socket.socket:
    host, _, port = target.rpartition(":")
    opened = socket.create_connection((host, int(port)), timeout=TIMEOUT_S)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # A timeout of Python's own would cost a poll() before every read.
    opened.settimeout(None)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(TIMEOUT_S), 0))
    return opened
