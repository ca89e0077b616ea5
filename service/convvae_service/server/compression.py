"""Compressed requests: they are refused, or unpacked with a limit.

gRPC itself unpacks a message without a limit on its size, so it is told to leave that to this module.
"""

import asyncio
import zlib
from typing import Literal

from convvae_service.calls.wire_format import unreadable
from convvae_service.errors import CompressionOff, InvalidInput, Violation

__all__ = ["COMPRESSION_OPTIONS", "Unpacking", "is_packed"]

# Bits of gRPC's list of algorithms. It refuses deflate itself, with the status UNIMPLEMENTED.
_IDENTITY, _GZIP = 1 << 0, 1 << 2
COMPRESSION_OPTIONS = [
    ("grpc.per_message_decompression", 0),
    ("grpc.compression_enabled_algorithms_bitset", _IDENTITY | _GZIP),
]
# The first two bytes of gzip (RFC 1952). No message of protobuf begins with them: it has
# no field of this type.
_GZIP_START = b"\x1f\x8b"
_GZIP_WINDOW_BITS = 31
_MAX_RATIO = 64
# Small messages may unpack to this many bytes, which takes 2 ms, at any ratio.
_MIN_UNPACKED_BYTES = 1 << 20


def is_packed(data: bytes) -> bool:
    """Return whether the bytes of a request are compressed."""
    return data[:2] == _GZIP_START


class Unpacking:
    """Unpacks requests that are compressed with gzip. Use it on one event loop.

    A request is unpacked to 64 times its bytes at most, or to 1 MiB if that is more. One large request is
    unpacked at a time.

    Args:
        mode: `gzip`, or `off` to refuse all of them.
        max_bytes: Maximum bytes of a request when it is unpacked.
    """

    def __init__(self, mode: Literal["off", "gzip"], *, max_bytes: int) -> None:
        self._mode = mode
        self._max_bytes = max_bytes
        self._one_at_a_time = asyncio.Lock()

    async def unpack(self, data: bytes) -> bytes:
        """Return a request without its compression.

        Raises:
            CompressionOff: The server takes no compressed requests.
            InvalidInput: The request is too large when it is unpacked, or its bytes are broken.
        """
        if self._mode == "off":
            raise CompressionOff(
                "the request is compressed, and this server takes no compressed requests: send it without"
                " compression, or start the server with --request-compression gzip"
            )
        max_bytes = min(self._max_bytes, max(_MIN_UNPACKED_BYTES, _MAX_RATIO * len(data)))
        if max_bytes <= _MIN_UNPACKED_BYTES:
            return _unpacked(data, max_bytes)
        async with self._one_at_a_time:
            return await asyncio.to_thread(_unpacked, data, max_bytes)


def _unpacked(data: bytes, max_bytes: int) -> bytes:
    unpacking = zlib.decompressobj(_GZIP_WINDOW_BITS)
    try:
        unpacked = unpacking.decompress(data, max_bytes + 1)
    except zlib.error:
        raise unreadable() from None
    if len(unpacked) > max_bytes:
        raise InvalidInput(
            [
                Violation(
                    "request",
                    f"has {len(data)} bytes in gzip, and more than {max_bytes} when it is unpacked: send"
                    " fewer rows, or send them without compression",
                )
            ]
        )
    if not unpacking.eof or unpacking.unused_data:
        raise unreadable()
    return unpacked
