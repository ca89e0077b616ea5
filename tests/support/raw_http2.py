"""HTTP/2 as no library would send it, without Huffman codes or a table.

RFC 9113, section 4.1, and RFC 7541, section 6.2.2.
"""

import socket
from collections.abc import Mapping

DATA, HEADERS, SETTINGS = 0, 1, 4
END_STREAM, END_HEADERS = 1, 4
TIMEOUT_S = 20.0


def connect(target: str, settings: bytes = b"") -> socket.socket:
    """Open a connection to HOST:PORT with a frame of settings, or an empty one."""
    host, port = target.split(":")
    connected = socket.create_connection((host, int(port)), timeout=TIMEOUT_S)
    connected.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + (settings or frame(SETTINGS, 0, 0, b"")))
    return connected


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return a frame."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def grpc_headers(method: str, metadata: Mapping[str, str] | None = None) -> bytes:
    """Return the block of headers that begins a call."""
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": f"/{method}",
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
        **(metadata or {}),
    }
    return header_block(headers)


def header_block(headers: Mapping[str, str]) -> bytes:
    """Return a block of headers."""
    return b"".join(b"\0" + _text(key) + _text(value) for key, value in headers.items())


def grpc_message(data: bytes) -> bytes:
    """Return a message with gRPC's prefix."""
    return b"\0" + len(data).to_bytes(4, "big") + data


def _text(value: str) -> bytes:
    length = bytes([len(value)]) if len(value) < 127 else bytes([127, len(value) - 127])
    return length + value.encode("latin-1")
