"""Compressed requests: refused by name of the setting, or unpacked within limits."""

import asyncio
import gzip
import tracemalloc
from typing import Literal

import pytest

from convvae_service.errors import CompressionOff, InvalidInput, ServiceError
from convvae_service.server.compression import Unpacking, is_packed

MIB = 1 << 20
MAX_BYTES = 8 * MIB


def unpack(data: bytes, mode: Literal["off", "gzip"] = "gzip") -> bytes:
    async def run() -> bytes:
        return await Unpacking(mode, max_bytes=MAX_BYTES).unpack(data)

    return asyncio.run(run())


@pytest.mark.parametrize("num_bytes", [0, 1, 1000, MIB, 2 * MIB])
def test_requests_in_gzip_are_unpacked(num_bytes: int) -> None:
    """Small and large ones come out as they went in."""
    data = bytes(range(256)) * (num_bytes // 256) + bytes(num_bytes % 256)
    packed = gzip.compress(data, compresslevel=0)
    assert is_packed(packed)
    assert unpack(packed) == data


def test_off_refuses_and_names_the_setting() -> None:
    """The caller learns that the request may be sent without compression."""
    with pytest.raises(CompressionOff, match="--request-compression gzip"):
        unpack(gzip.compress(b"x"), "off")


@pytest.mark.parametrize("mib", [2, 9, 200])
def test_a_bomb_ends_at_the_limit(mib: int) -> None:
    """It takes no more memory than the limit allows, twice while it is unpacked."""
    bomb = gzip.compress(bytes(mib * MIB))
    tracemalloc.start()
    with pytest.raises(InvalidInput, match="when it is unpacked"):
        unpack(bomb)
    assert tracemalloc.get_traced_memory()[1] < 2.5 * MAX_BYTES
    tracemalloc.stop()


PACKED = gzip.compress(b"x", mtime=0)


@pytest.mark.parametrize(
    "data",
    [
        b"\x1f\x8b",
        gzip.compress(b"x" * 1000, mtime=0)[:-1],
        PACKED[:-5] + b"12345",
        PACKED + b"more",
        PACKED + PACKED,
        b"\x1f\x8b" + bytes(100),
    ],
    ids=["a start", "cut", "another checksum", "more bytes", "twice", "no header"],
)
def test_broken_gzip_is_refused(data: bytes) -> None:
    """Cut, changed or followed by more: it is no request."""
    with pytest.raises(ServiceError, match="its bytes are not a message"):
        unpack(data)
