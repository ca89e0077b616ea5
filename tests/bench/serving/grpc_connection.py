"""gRPC as far as a caller of one request needs it: nothing of it is shared with grpcio.

RFC 9113 and gRPC's protocol over HTTP/2.
"""

import socket
from collections.abc import Iterator
from contextlib import suppress

from bench.serving.connection import RECEIVE_BYTES, TIMEOUT_S, CallFailed, open_socket, receive
from bench.serving.request import Request
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

__all__ = ["GrpcConnection"]

RST_STREAM, PING, GOAWAY, WINDOW_UPDATE = 3, 6, 7, 8
ACK = 1
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 4, 5
LARGEST_WINDOW = 2**31 - 1
DEFAULT_WINDOW = 65535
# A caller that has received so many bytes gives them back to the server's window.
RETURNED_BYTES = 2**30


class GrpcConnection:
    """Unary gRPC calls, one after the other, over one HTTP/2 connection (RFC 9113)."""

    def __init__(self, target: str, request: Request) -> None:
        self._target = target
        metadata = {"grpc-timeout": f"{TIMEOUT_S:.0f}S", "user-agent": "grpc-bench"}
        self._headers = grpc_headers(request.path.removeprefix("/"), metadata)
        self._message = grpc_message(request.body)
        self._connect()

    def _connect(self) -> None:
        self._socket = open_socket(self._target)
        self._received = bytearray()
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
        """Connect again if the server has closed the connection because it was idle."""
        with suppress(BlockingIOError):
            while data := self._socket.recv(RECEIVE_BYTES, socket.MSG_DONTWAIT):
                self._received += data
            self._socket.close()
            self._connect()

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
            self._received += receive(self._socket)
        size = int.from_bytes(self._received[:3], "big")
        while len(self._received) < 9 + size:
            self._received += receive(self._socket)
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
