"""A connection of HTTP/2 that sends what it is told, within the server's windows, and reads what it likes.

RFC 9113, sections 5.2 and 6.
"""

import time
from collections.abc import Mapping

from support.raw_http2 import (
    DATA,
    END_HEADERS,
    END_STREAM,
    GO_AWAY,
    HEADERS,
    RST_STREAM,
    SETTINGS,
    connect,
    frame,
    grpc_headers,
)

__all__ = ["RawConnection"]

PING, WINDOW_UPDATE = 6, 8
ACK = 1
INITIAL_WINDOW = 65_535
FRAME_BYTES = 16_384
INITIAL_WINDOW_ID = 4
WAIT_S = 0.05


class RawConnection:
    """A connection to HOST:PORT. It acknowledges the server's settings, unless it is told not to.

    Attributes:
        sent_bytes: Bytes that were sent.
        received_bytes: Bytes that were read.
        ended: Calls that the server has ended.
        closed: Whether the server has ended the connection.
    """

    def __init__(
        self, address: str, settings: Mapping[int, int] | None = None, *, acknowledges: bool = True
    ) -> None:
        pairs = (settings or {}).items()
        payload = b"".join(key.to_bytes(2, "big") + value.to_bytes(4, "big") for key, value in pairs)
        self.sent_bytes = self.received_bytes = self.ended = 0
        self.closed = False
        self._acknowledges = acknowledges
        self._socket = connect(address, frame(SETTINGS, 0, 0, payload))
        self._window = INITIAL_WINDOW
        self._stream_window = INITIAL_WINDOW
        self._windows: dict[int, int] = {}
        self._last_stream = -1
        self._received = b""

    def begin(self, method: str, metadata: Mapping[str, str] | None = None, block: bytes = b"") -> int:
        """Send the headers of a call, with further ones as they stand in `block`, and return its stream."""
        self._last_stream += 2
        self._windows[self._last_stream] = self._stream_window
        self.send(
            frame(
                HEADERS,
                END_HEADERS,
                self._last_stream,
                grpc_headers(method.removeprefix("/"), metadata) + block,
            )
        )
        return self._last_stream

    def send(self, data: bytes) -> None:
        """Send bytes as they are; none if the server has ended the connection, or reads nothing for 5 s."""
        if self.closed:
            return
        self._socket.settimeout(5.0)
        try:
            self._socket.sendall(data)
            self.sent_bytes += len(data)
        except OSError:
            self.closed = True

    def send_data(self, stream: int, data: bytes, *, ends: bool = False, timeout_s: float = 5.0) -> int:
        """Send data of a call within the windows, for at most `timeout_s`, and return how much was sent."""
        sent = 0
        end_s = time.monotonic() + timeout_s
        while not self.closed and time.monotonic() < end_s and stream in self._windows:
            size = min(FRAME_BYTES, self._window, self._windows[stream], len(data) - sent)
            if size > 0 or not data:
                is_last = sent + size == len(data)
                self.send(
                    frame(DATA, END_STREAM if ends and is_last else 0, stream, data[sent : sent + size])
                )
                sent += size
                self._window -= size
                self._windows[stream] -= size
            if sent == len(data):
                break
            self.read(0.0 if size > 0 else WAIT_S)
        return sent

    def read(self, wait_s: float = WAIT_S) -> bytes:
        """Read once what has come within `wait_s`, follow it, and return it."""
        if self.closed:
            return b""
        self._socket.settimeout(max(wait_s, 1e-4))
        try:
            data = self._socket.recv(1 << 18)
        except (TimeoutError, BlockingIOError):
            return b""
        except OSError:
            data = b""
        self.closed = not data
        self.received_bytes += len(data)
        self._received += data
        self._follow()
        return data

    def read_until_ended(self, calls: int, timeout_s: float) -> None:
        """Read until the server has ended so many calls, or the connection, for at most `timeout_s`."""
        end_s = time.monotonic() + timeout_s
        while self.ended < calls and not self.closed and time.monotonic() < end_s:
            self.read()

    def close(self) -> None:
        """Close the socket."""
        self.closed = True
        self._socket.close()

    def _follow(self) -> None:
        received = self._received
        start = 0
        while len(received) >= start + 9:
            end = start + 9 + int.from_bytes(received[start : start + 3], "big")
            if len(received) < end:
                break
            kind, flags = received[start + 3], received[start + 4]
            stream = int.from_bytes(received[start + 5 : start + 9], "big") & 0x7FFFFFFF
            self._take(kind, flags, stream, received[start + 9 : end])
            start = end
        self._received = received[start:]

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == WINDOW_UPDATE:
            step = int.from_bytes(payload, "big")
            if stream:
                self._windows[stream] = self._windows.get(stream, 0) + step
            else:
                self._window += step
        elif kind == SETTINGS and not flags & ACK:
            for at in range(0, len(payload), 6):
                if int.from_bytes(payload[at : at + 2], "big") == INITIAL_WINDOW_ID:
                    self._change_stream_windows(int.from_bytes(payload[at + 2 : at + 6], "big"))
            if self._acknowledges:
                self.send(frame(SETTINGS, ACK, 0, b""))
        elif kind == PING and not flags & ACK:
            self.send(frame(PING, ACK, 0, payload))
        elif kind == RST_STREAM or (kind == HEADERS and flags & END_STREAM):
            self.ended += 1
            self._windows.pop(stream, None)
        elif kind == GO_AWAY:
            # The calls that it began may go on; the server closes the connection when it likes.
            pass

    def _change_stream_windows(self, size: int) -> None:
        step = size - self._stream_window
        self._stream_window = size
        for stream in self._windows:
            self._windows[stream] += step
