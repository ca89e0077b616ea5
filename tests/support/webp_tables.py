"""Lossless WebP files whose pixels need many sets of tables."""

import struct

__all__ = ["many_tables"]


class _Bits:
    """Bits in the order of a lossless WebP: the lowest first."""

    def __init__(self) -> None:
        self._bits: list[str] = []

    def add(self, value: int, count: int) -> None:
        self._bits.append(format(value, f"0{count}b")[::-1])

    def code(self, value: int, count: int) -> None:
        """Add a prefix code, whose highest bit is first."""
        self._bits.append(format(value, f"0{count}b"))

    def content(self) -> bytes:
        bits = "".join(self._bits)
        bits += "0" * (-len(bits) % 8)
        return int(bits[::-1], 2).to_bytes(len(bits) // 8, "little")


def many_tables(side: int, count: int) -> bytes:
    """Return a black WebP of `side` x `side` pixels with `count` sets of five tables, each used once or more.

    After the WebP Lossless Bitstream Specification, sections 5 and 6. Each block of 4 x 4 pixels has a set.

    Args:
        side: A multiple of 4.
        count: Number of sets, at most 65,536 and (side / 4) squared.
    """
    bits = _Bits()
    bits.add(side - 1, 14)
    bits.add(side - 1, 14)
    bits.add(0, 4)  # no alpha, version 0
    bits.add(0, 2)  # no transforms, no colour cache
    bits.add(1, 1)  # an image of sets follows
    bits.add(0, 3)  # of blocks of 4 pixels
    bits.add(0, 1)  # without a colour cache
    for symbols in (280, 256):  # green and red: 256 codes of 8 bits
        bits.add(0, 1)
        # Codes for the lengths 0 and 8, of one bit. Their order is 17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8.
        bits.add(12 - 4, 4)
        for length in (17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8):
            bits.add(1 if length in (0, 8) else 0, 3)
        bits.add(0, 1)
        for symbol in range(symbols):
            bits.add(1 if symbol < 256 else 0, 1)
    for _ in range(3):  # blue, alpha, distance: one symbol, 0
        bits.add(0b0001, 4)
    for block in range((side // 4) ** 2):
        set_number = block % count
        bits.code(set_number & 255, 8)
        bits.code(set_number >> 8, 8)
    for _ in range(5 * count):
        bits.add(0b0001, 4)
    content = b"\x2f" + bits.content()
    content += b"\0" * (len(content) % 2)
    return struct.pack("<4sI4s4sI", b"RIFF", len(content) + 12, b"WEBP", b"VP8L", len(content)) + content
