"""Image files that are small, and long or large to decode. Each is as its standard allows, or nearly.

ITU-T T.81, annex B (JPEG), and the PNG specification, section 5.
"""

import io
import struct
import zlib

import numpy as np
from PIL import Image

from support.png_file import SIGNATURE, chunk, png_file

__all__ = ["bomb_of_pixels", "jpeg_of_restarts", "jpeg_of_scans", "jpeg_of_segments", "pictures"]

LONGEST_RUN = 32_767
# The first pixel data of a PNG come after the signature and IHDR.
AFTER_HEADER = 33


def _segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def jpeg_of_scans(side: int, scans: int) -> bytes:
    """Return a progressive JPEG, all grey, each of whose scans goes over all blocks in a few bytes."""
    blocks = ((side + 7) // 8) ** 2

    def table(kind: int, symbol: int) -> bytes:
        # One code of one bit.
        return _segment(0xC4, bytes([kind, 1, *[0] * 15, symbol]))

    def scan(first: int, last: int, low: int) -> bytes:
        return _segment(0xDA, bytes([1, 1, 0, first, last, low]))

    runs, left = [], blocks
    while left > 0:
        # EOB14: a run of 2^14 blocks and as many more as the next 14 bits say.
        more = max(0, min(left, LONGEST_RUN) - (1 << 14))
        runs.append(f"0{more:014b}")
        left -= (1 << 14) + more
    bits = "".join(runs)
    bits += "1" * (-len(bits) % 8)
    body = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    return b"".join(
        [
            b"\xff\xd8",
            _segment(0xDB, bytes([0, *[1] * 64])),
            _segment(0xC2, struct.pack(">BHHBBBB", 8, side, side, 1, 1, 0x11, 0)),
            table(0x00, 0x00),
            table(0x10, 0xE0),
            scan(0, 0, 0) + bytes((blocks + 7) // 8),
            (scan(1, 63, 1) + body) * scans,
            b"\xff\xd9",
        ]
    )


def _jpeg(side: int, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (side, side), 128).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def jpeg_of_segments(marker: int, data: bytes, segments: int) -> bytes:
    """Return a JPEG of 8x8 pixels with so many segments of one kind before its header."""
    plain = _jpeg(8)
    return plain[:2] + _segment(marker, data) * segments + plain[2:]


def jpeg_of_restarts(side: int) -> bytes:
    """Return a JPEG of so many pixels a side that states a restart after each block, with few blocks."""
    plain = bytearray(_jpeg(64, restart_marker_blocks=1))
    start = plain.index(b"\xff\xc0")
    plain[start + 5 : start + 9] = struct.pack(">HH", side, side)
    return bytes(plain)


def png_of_chunks(kind: bytes, data: bytes, chunks: int) -> bytes:
    """Return a PNG of 8x8 pixels with so many chunks of one kind before its pixels."""
    plain = png_file(np.zeros((8, 8, 1), np.uint16), depth=8, colour=0)
    return plain[:AFTER_HEADER] + chunk(kind, data) * chunks + plain[AFTER_HEADER:]


def bomb_of_pixels(side: int, colour: int, samples: int) -> bytes:
    """Return a PNG of side x side pixels of 16 bits, all 0, which is 1,000 times as small as its pixels."""
    header = struct.pack(">IIBBBBB", side, side, 16, colour, 0, 0, 0)
    pixels = zlib.compress(bytes((1 + 2 * samples * side) * side), 9)
    return SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND")


def animation(kind: str, frames: int) -> bytes:
    """Return an animation of so many frames that differ."""
    buffer = io.BytesIO()
    pictures = [Image.new("RGB", (16, 16), (number % 256, number // 256, 0)) for number in range(frames)]
    pictures[0].save(buffer, kind, save_all=True, append_images=pictures[1:], duration=1)
    return buffer.getvalue()


def pictures(scale: float) -> dict[str, list[bytes]]:
    """Return the files of each call by name; `scale` 1 is for files of a few MB."""
    many = int(scale * 1_000_000)
    side = int(5600 * scale**0.5)
    bomb = zlib.compress(bytes(int(scale * 50_000_000)), 9)
    return {
        "JPEG, 14,000 scans": [jpeg_of_scans(side, int(14_000 * scale))] * 2,
        "JPEG, 90 scans": [jpeg_of_scans(side, 90)] * 8,
        "JPEG, empty application segments": [jpeg_of_segments(0xE5, b"", 4 * many)] * 2,
        "JPEG, empty comments": [jpeg_of_segments(0xFE, b"", 4 * many)] * 2,
        "JPEG, profiles in parts": [jpeg_of_segments(0xE2, b"ICC_PROFILE\0\1\1", many // 4)] * 2,
        "JPEG, tables again and again": [jpeg_of_segments(0xDB, bytes([0, *[1] * 64]), many // 20)] * 4,
        "JPEG, pixels that are missing": [jpeg_of_restarts(side)] * 16,
        "PNG, empty chunks": [png_of_chunks(b"prVt", b"", many // 2)] * 2,
        "PNG, empty pixel data": [png_of_chunks(b"IDAT", b"", many // 2)] * 2,
        "PNG, texts that expand": [png_of_chunks(b"zTXt", b"a\0\0" + bomb, 20)] * 4,
        "PNG, a profile that expands": [png_of_chunks(b"iCCP", b"a\0\0" + bomb, 1)] * 16,
        "PNG, 31 million pixels of 8 bytes": [bomb_of_pixels(side, 6, 4)] * 8,
        "PNG, 31 million pixels of 4 bytes": [bomb_of_pixels(side, 4, 2)] * 16,
        "PNG, 2,000 frames": [animation("PNG", int(2000 * scale))] * 4,
        "WebP, 2,000 frames": [animation("WEBP", int(2000 * scale))] * 4,
        "an honest call of 64 files": [_jpeg(int(28 + 100 * scale))] * 64,
    }
