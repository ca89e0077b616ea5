"""WebP files: their size and orientation, from the chunks of the RIFF container."""

import struct
from collections.abc import Iterator

from convvae_service.images.header import ImageHeader, InvalidImage
from convvae_service.images.orientation import picture_orientation

__all__ = ["is_webp", "read_webp"]

_CUT_SHORT = "image file is cut short"
_DAMAGED = "damaged WebP: its header cannot be read"
# An animation has three chunks for each frame. A file may have this many chunks, and one more for each KiB.
_MAX_CHUNKS = 10_000
_MAX_CHUNKS_PER_BYTE = 1 / 1024
# Longer metadata are not searched for an orientation.
_MAX_METADATA_BYTES = 1 << 20
# Pillow reads every file as an animation: two canvases of four bytes, a copy of one, and a plane of alpha.
_HELD_BYTES_PER_PIXEL = 13
_FRAME_START = b"\x9d\x01\x2a"
_LOSSLESS_START = b"\x2f"


def is_webp(data: bytes) -> bool:
    """Return whether `data` starts as a WebP file does."""
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def read_webp(data: bytes) -> ImageHeader:
    """Return the header of a WebP file. An animation is its first frame.

    Raises:
        InvalidImage: The file ends early, its header is damaged, or it has more chunks than real files have.
    """
    size: tuple[int, int] | None = None
    exif, xmp = b"", b""
    for kind, content in _chunks(data):
        if size is None:
            size = _size(kind, content)
        if kind == b"EXIF":
            exif = bytes(content[:_MAX_METADATA_BYTES]).removeprefix(b"Exif\0\0")
        elif kind == b"XMP ":
            xmp = bytes(content[:_MAX_METADATA_BYTES])
    if size is None:
        raise InvalidImage(_DAMAGED)
    return ImageHeader(
        width=size[0],
        height=size[1],
        channels=3,
        orientation=picture_orientation(exif, xmp),
        content=data,
        held_bytes=_HELD_BYTES_PER_PIXEL * size[0] * size[1],
    )


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    (length,) = struct.unpack_from("<I", data, 4)
    if length + 8 > len(data):
        raise InvalidImage(_CUT_SHORT)
    view, position = memoryview(data), 12
    for _ in range(most := _MAX_CHUNKS + int(_MAX_CHUNKS_PER_BYTE * len(data))):
        if position + 8 > length + 8:
            return
        kind, size = struct.unpack_from("<4sI", data, position)
        start = position + 8
        yield kind, view[start : start + size]
        position = start + size + size % 2
    raise InvalidImage(f"WebP of more than {most} chunks, the limit for {len(data)} bytes: save it again")


def _size(kind: bytes, content: memoryview) -> tuple[int, int]:
    """Return (width, height) from the first chunk of a file."""
    if kind == b"VP8X" and len(content) >= 10:
        return (1 + int.from_bytes(content[4:7], "little"), 1 + int.from_bytes(content[7:10], "little"))
    if kind == b"VP8 " and content[3:6] == _FRAME_START and len(content) >= 10:
        width, height = struct.unpack_from("<HH", content, 6)
        if width & 0x3FFF and height & 0x3FFF:
            return (width & 0x3FFF, height & 0x3FFF)
    if kind == b"VP8L" and content[:1] == _LOSSLESS_START and len(content) >= 5:
        bits = int.from_bytes(content[1:5], "little")
        return (1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
    raise InvalidImage(_DAMAGED)
