"""PNG files of every kind, written from their samples, with any chunks, sound or damaged."""

import struct
import zlib
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["SIGNATURE", "chunk", "png_file", "scanlines"]

SIGNATURE = b"\x89PNG\r\n\x1a\n"
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def chunk(kind: bytes, data: bytes = b"", *, checksum: int | None = None) -> bytes:
    """Return one chunk, with another checksum than its own if one is given."""
    own = zlib.crc32(data, zlib.crc32(kind))
    return (
        struct.pack(">I4s", len(data), kind) + data + struct.pack(">I", own if checksum is None else checksum)
    )


def png_file(
    samples: NDArray[np.uint16],
    *,
    depth: int,
    colour: int,
    interlaced: bool = False,
    before: Iterable[bytes] = (),
    after: Iterable[bytes] = (),
    rows: bytes | None = None,
) -> bytes:
    """Return a PNG.

    Args:
        samples: (H, W, samples of a pixel), each below 2^depth.
        depth: Bits of a sample.
        colour: 0 grey, 2 RGB, 3 palette, 4 grey with alpha, 6 RGB with alpha.
        interlaced: Whether the pixels come in seven passes.
        before: Chunks between the header and the pixels.
        after: Chunks between the pixels and the end.
        rows: Scanlines to write in place of those of `samples`.
    """
    height, width = samples.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(interlaced))
    pixels = zlib.compress(scanlines(samples, depth, interlaced) if rows is None else rows)
    middle = len(pixels) // 2
    parts = [SIGNATURE, chunk(b"IHDR", header), *before]
    # An empty chunk and several chunks are allowed.
    parts += [chunk(b"IDAT", part) for part in (b"", pixels[:middle], pixels[middle:])]
    return b"".join([*parts, *after, chunk(b"IEND")])


def scanlines(samples: NDArray[np.uint16], depth: int, interlaced: bool = False) -> bytes:
    """Return the rows as a PNG stores them, with the five filters one after the other."""
    parts = []
    for left, top, right, down in PASSES if interlaced else ((0, 0, 1, 1),):
        part = samples[top::down, left::right]
        if part.size:
            parts.append(_filtered(_packed(part, depth), max(1, depth * samples.shape[2] // 8)))
    return b"".join(parts)


def _packed(samples: NDArray[np.uint16], depth: int) -> list[bytes]:
    flat = samples.reshape(len(samples), -1)
    if depth == 16:
        return [row.astype(">u2").tobytes() for row in flat]
    bits = (flat[..., None] >> np.arange(depth - 1, -1, -1, dtype=np.uint16)) & 1
    return [np.packbits(row.reshape(-1).astype(np.uint8)).tobytes() for row in bits]


def _filtered(rows: Sequence[bytes], step: int) -> bytes:
    above, out = bytes(len(rows[0])), bytearray()
    for number, row in enumerate(rows):
        kind = number % 5
        out.append(kind)
        for place, value in enumerate(row):
            left = row[place - step] if place >= step else 0
            corner = above[place - step] if place >= step else 0
            up = above[place]
            guess = (0, left, up, (left + up) // 2, _paeth(left, up, corner))[kind]
            out.append((value - guess) & 0xFF)
        above = row
    return bytes(out)


def _paeth(left: int, up: int, corner: int) -> int:
    guess = left + up - corner
    distances = (abs(guess - left), abs(guess - up), abs(guess - corner))
    return (left, up, corner)[distances.index(min(distances))]
