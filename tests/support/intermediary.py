"""A program between a client and a server that answers in the server's place: raw HTTP/2, or other bytes."""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from support.raw_http2 import DATA, END_HEADERS, END_STREAM, HEADERS, SETTINGS, frame, header_block

__all__ = ["Answer", "closes", "http2_answer", "intermediary", "plain_answer", "resets"]

RST_STREAM, GOAWAY, ACK = 3, 7, 1
PREFACE_BYTES = 24
# Writes the answer to the request of a stream.
Answer = Callable[[socket.socket, int], None]


def http2_answer(headers: Mapping[str, str], body: bytes = b"", trailers: bytes = b"") -> Answer:
    """Return an answer of headers, a body and, if there are any, raw trailers."""

    def answer(connected: socket.socket, stream: int) -> None:
        connected.sendall(frame(HEADERS, END_HEADERS, stream, header_block(headers)))
        connected.sendall(frame(DATA, 0 if trailers else END_STREAM, stream, body))
        if trailers:
            connected.sendall(frame(HEADERS, END_HEADERS | END_STREAM, stream, trailers))

    return answer


def resets(code: int) -> Answer:
    """Return an answer that resets the stream with an error code of HTTP/2."""
    return lambda connected, stream: connected.sendall(frame(RST_STREAM, 0, stream, struct.pack(">I", code)))


def plain_answer(data: bytes) -> bytes:
    """Return an HTTP/1.1 answer."""
    return b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n" % len(data) + data


def closes(_connected: socket.socket, _stream: int) -> None:
    """Answer by the end of the connection."""
    _connected.close()


@contextmanager
def intermediary(*answers: Answer | bytes) -> Iterator[tuple[str, list[int]]]:
    """Serve on a free port of the loopback. Yield its address and the list of the requests.

    Args:
        answers: The answers to the first, second, … request; the last one is repeated. Bytes are written to
            each connection after its first bytes, in place of HTTP/2.
    """
    listening = socket.create_server(("127.0.0.1", 0))
    requests: list[int] = []
    opened: list[socket.socket] = []

    def serve(connected: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), connected:
            if isinstance(answers[0], bytes):
                connected.recv(4096)
                connected.sendall(answers[0])
                return
            _receive(connected, PREFACE_BYTES)
            connected.sendall(frame(SETTINGS, 0, 0, b""))
            while True:
                head = _receive(connected, 9)
                size, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
                stream = int.from_bytes(head[5:], "big") & 0x7FFFFFFF
                _receive(connected, size)
                if kind == SETTINGS and not flags & ACK:
                    connected.sendall(frame(SETTINGS, ACK, 0, b""))
                elif kind == DATA and flags & END_STREAM:
                    requests.append(stream)
                    chosen = answers[min(len(requests), len(answers)) - 1]
                    assert not isinstance(chosen, bytes)
                    chosen(connected, stream)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connected, _ = listening.accept()
                opened.append(connected)
                threading.Thread(target=serve, args=(connected,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"127.0.0.1:{listening.getsockname()[1]}", requests
    finally:
        for each in (listening, *opened):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


def _receive(connected: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connected.recv(size - len(data))
        if not part:
            raise ValueError("the connection ended")
        data += part
    return data
