"""HTTP/2 as no library would send it, without Huffman codes or a table.

RFC 9113, section 4.1, and RFC 7541, section 6.2.2.
"""

import re
import socket
from collections.abc import Iterator, Mapping

DATA, HEADERS, RST_STREAM, SETTINGS, GO_AWAY, WINDOW_UPDATE = 0, 1, 3, 4, 7, 8
END_STREAM, END_HEADERS = 1, 4
TIMEOUT_S = 20.0


def connect(target: str, settings: bytes = b"") -> socket.socket:
    """Open a connection to HOST:PORT or unix:PATH with a frame of settings, or an empty one."""
    host, port = target.split(":")
    if host == "unix":
        connected = socket.socket(socket.AF_UNIX)
        connected.settimeout(TIMEOUT_S)
        connected.connect(port)
    else:
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


def read_call(connected: socket.socket) -> bytes:
    """Return what the server sends up to the end of the only call, or of the connection."""
    received = b""
    while not _has_end(received) and (data := connected.recv(65536)):
        received += data
    return received


def grpc_status(received: bytes) -> int:
    """Return the status of a call from 0 to 9, which ends it, plain or by the Huffman code of RFC 7541."""
    found = _STATUS.search(received)
    assert found, received
    plain, packed = found.groups()
    return int(plain) if plain else _PACKED_DIGITS.index(packed)


# Strings with their lengths, of which the first bit tells that they are packed.
_NAME, _PACKED_NAME = rb"\x0bgrpc-status", rb"\x88\x9a\xca\xc8\xb2\x12\x34\xda\x8f"
_STATUS = re.compile(rb"(?:" + _NAME + rb"|" + _PACKED_NAME + rb")(?:\x01([0-9])|\x81(.))", re.DOTALL)
_PACKED_DIGITS = [bytes([code]) for code in b"\x07\x0f\x17\x67\x6b\x6f\x73\x77\x7b\x7f"]


def _has_end(received: bytes) -> bool:
    return any(
        kind in (RST_STREAM, GO_AWAY) or (kind == HEADERS and flags & END_STREAM)
        for kind, flags in _frames(received)
    )


def _frames(received: bytes) -> Iterator[tuple[int, int]]:
    """Yield the kind and the flags of each frame that is whole."""
    while len(received) >= 9 and len(received) >= (size := 9 + int.from_bytes(received[:3], "big")):
        yield received[3], received[4]
        received = received[size:]


def _text(value: str) -> bytes:
    data = value.encode("latin-1")
    if len(data) < 127:
        return bytes([len(data)]) + data
    # RFC 7541, section 5.1.
    length, left = bytearray([127]), len(data) - 127
    while left > 0x7F:
        length.append(left & 0x7F | 0x80)
        left >>= 7
    length.append(left)
    return bytes(length) + data
