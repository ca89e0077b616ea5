"""PNG files: their chunks, checked, and the same image without metadata, after ISO/IEC 15948."""

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from convvae_service.images.header import ImageHeader, InvalidImage
from convvae_service.images.orientation import picture_orientation

__all__ = ["PNG_SIGNATURE", "check_rows", "packed_pixels", "read_png"]

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CUT_SHORT = "image file is cut short"
_CRITICAL = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
_GREY, _RGB, _PALETTE, _GREY_ALPHA, _RGB_ALPHA = 0, 2, 3, 4, 6
_SAMPLES = {_GREY: 1, _RGB: 3, _PALETTE: 1, _GREY_ALPHA: 2, _RGB_ALPHA: 4}
_DEPTHS = {
    _GREY: (1, 2, 4, 8, 16),
    _RGB: (8, 16),
    _PALETTE: (1, 2, 4, 8),
    _GREY_ALPHA: (8, 16),
    _RGB_ALPHA: (8, 16),
}
_CHUNK_START = struct.Struct(">I4s")
# First column, first row, and the steps of both, for the seven passes of an interlaced file.
_PASSES = (
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2),
)  # fmt: skip
_WINDOW_BYTES = 1 << 16
# Encoders divide pixels into chunks of 8 KiB or more, animations have frames of some hundred bytes, and
# metadata are a few chunks. A file may have this many chunks, and one more for each KiB.
_MAX_CHUNKS = 10_000
_MAX_CHUNKS_PER_BYTE = 1 / 1024
# More text than this is not searched for an orientation.
_MAX_TEXT_BYTES = 1 << 20
_RAW_PROFILE = b"Raw profile type exif"
_XMP = b"XML:com.adobe.xmp"


class _Chunk(NamedTuple):
    kind: bytes
    data: memoryview
    is_sound: bool  # whether the checksum is right
    whole: memoryview


@dataclass(slots=True)
class _Chunks:
    """The chunks of a file that its picture needs."""

    header: memoryview | None = None
    palette: bytes = b""
    transparency: bytes = b""
    pixels: list[memoryview] = field(default_factory=list)
    exif: bytes = b""
    xmp: bytes = b""
    searched: set[bytes] = field(default_factory=set)  # keys of the texts that were searched


def read_png(data: bytes) -> ImageHeader:
    """Return the header of a PNG file, and its pixels in a file without metadata.

    Ancillary chunks may be of any size, of a wrong length, or have a wrong checksum: then they are passed
    over. An animation is its default image. A transparent colour of the palette is black in the new file.

    Raises:
        InvalidImage: The header, the palette or a chunk of pixels is damaged or missing, or the end is; or
            there are more chunks than real files have.
    """
    chunks = _collect(data)
    if chunks.header is None:
        raise InvalidImage("damaged PNG: it does not start with its header IHDR")
    width, height, depth, colour, compression, filters, interlace = struct.unpack(
        ">IIBBBBB", chunks.header[8:-4]
    )
    if not (width and height) or depth not in _DEPTHS.get(colour, ()) or compression or filters:
        raise InvalidImage("damaged PNG: its header has impossible values")
    if interlace > 1:
        raise InvalidImage("damaged PNG: its header has impossible values")
    if not chunks.pixels:
        raise InvalidImage(f"{_CUT_SHORT}: it has no pixels")
    parts: list[bytes | memoryview] = [PNG_SIGNATURE, chunks.header]
    if colour == _PALETTE:
        parts.append(_chunk(b"PLTE", _over_black(chunks.palette, chunks.transparency)))
    parts += chunks.pixels
    parts.append(_chunk(b"IEND", b""))
    return ImageHeader(
        width=width,
        height=height,
        channels=1 if colour in (_GREY, _GREY_ALPHA) else 3,
        orientation=picture_orientation(chunks.exif, chunks.xmp),
        content=b"".join(parts),
        held_bytes=_held_bytes(width, height, depth, colour, is_transparent=bool(chunks.transparency)),
        transparent=_transparent_colour(chunks.transparency, colour, depth),
        depth=depth,
    )


def _held_bytes(width: int, height: int, depth: int, colour: int, *, is_transparent: bool) -> int:
    """Return the bytes that decoding holds: the picture, its copy, and two rows as they are in the file."""
    sample_bytes = 2 if depth == 16 else 1
    pixel_bytes = sample_bytes if colour in (_GREY, _PALETTE) else 4
    if colour == _RGB and depth == 16 and is_transparent:
        pixel_bytes = 8  # the lower bytes of the samples are a second picture
    return width * height * (pixel_bytes + 4) + 2 * (width * _SAMPLES[colour] * sample_bytes)


def check_rows(content: bytes) -> None:
    """Check that the pixels of a file from `read_png` are complete. Pillow leaves missing rows black.

    Raises:
        InvalidImage: Rows are missing, or the pixels do not decompress.
    """
    width, height, depth, colour, *_, interlace = struct.unpack_from(">IIBBBBB", content, 16)
    missing = sum(_pass_bytes(width, height, depth * _SAMPLES[colour], interlace))
    inflate = zlib.decompressobj()
    try:
        for part in packed_pixels(content):
            for start in range(0, len(part), _WINDOW_BYTES):
                window: memoryview | bytes = part[start : start + _WINDOW_BYTES]
                while window and missing > 0 and not inflate.eof:
                    missing -= len(inflate.decompress(window, min(missing, 16 * _WINDOW_BYTES)))
                    window = inflate.unconsumed_tail
                if missing <= 0:
                    return
        missing -= len(inflate.flush())
    except zlib.error:
        raise InvalidImage("damaged PNG: its pixels do not decompress") from None
    if missing > 0:
        raise InvalidImage(f"{_CUT_SHORT}: {missing} bytes of its pixels are missing")


def packed_pixels(content: bytes) -> Iterator[memoryview]:
    """Yield the compressed pixels of a file from `read_png`, chunk by chunk."""
    view, position = memoryview(content), len(PNG_SIGNATURE)
    while position < len(content):
        length, kind = _CHUNK_START.unpack_from(content, position)
        if kind == b"IDAT":
            yield view[position + 8 : position + 8 + length]
        position += 12 + length


def _pass_bytes(width: int, height: int, pixel_bits: int, interlace: int) -> Iterator[int]:
    """Yield the bytes of each pass over the picture: a filter type for each row, then its pixels."""
    for left, top, right_step, down_step in _PASSES if interlace else ((0, 0, 1, 1),):
        columns = -(-(width - left) // right_step)
        rows = -(-(height - top) // down_step)
        if columns > 0 and rows > 0:
            yield rows * (1 + (columns * pixel_bits + 7) // 8)


def _walk(data: bytes) -> Iterator[_Chunk]:
    """Yield the chunks up to the end of the picture.

    Raises:
        InvalidImage: The file ends within a chunk, or before IEND, or has too many chunks.
    """
    view, position = memoryview(data), len(PNG_SIGNATURE)
    for _ in range(most := _MAX_CHUNKS + int(_MAX_CHUNKS_PER_BYTE * len(data))):
        if position + 12 > len(data):
            raise InvalidImage(_CUT_SHORT)
        length, kind = _CHUNK_START.unpack_from(data, position)
        end = position + 12 + length
        if end > len(data):
            raise InvalidImage(_CUT_SHORT)
        is_sound = zlib.crc32(view[position + 4 : end - 4]) == int.from_bytes(data[end - 4 : end], "big")
        yield _Chunk(kind, view[position + 8 : end - 4], is_sound, view[position:end])
        if kind == b"IEND":
            return
        position = end
    raise InvalidImage(f"PNG of more than {most} chunks, the limit for {len(data)} bytes: save it again")


def _collect(data: bytes) -> _Chunks:
    chunks = _Chunks()
    for position, chunk in enumerate(_walk(data)):
        is_critical = not chunk.kind[0] & 0x20
        if is_critical and chunk.kind not in _CRITICAL:
            name = re.sub(r"[^A-Za-z]", "?", chunk.kind.decode("latin-1"))
            raise InvalidImage(f"damaged PNG: its chunk {name} is not part of the format")
        if not chunk.is_sound:
            if is_critical:
                raise InvalidImage(f"damaged PNG: its chunk {chunk.kind.decode()} has a wrong checksum")
            continue
        match chunk.kind:
            case b"IHDR" if position == 0 and len(chunk.data) == 13:
                chunks.header = chunk.whole
            case b"PLTE":
                chunks.palette = chunks.palette or bytes(chunk.data)
            case b"IDAT":
                chunks.pixels.append(chunk.whole)
            case b"tRNS":
                chunks.transparency = chunks.transparency or bytes(chunk.data)
            case b"eXIf" if len(chunk.data) <= _MAX_TEXT_BYTES:
                chunks.exif = bytes(chunk.data).removeprefix(b"Exif\0\0")
            case b"tEXt" | b"zTXt" | b"iTXt":
                _collect_text(chunk, chunks)
    return chunks


def _collect_text(chunk: _Chunk, chunks: _Chunks) -> None:
    """Take the text of a chunk that may hold the orientation."""
    key, _, rest = bytes(chunk.data[: _MAX_TEXT_BYTES + 256]).partition(b"\0")
    if key not in (_XMP, _RAW_PROFILE) or key in chunks.searched:
        return
    # Each may unpack to a MiB: one of each kind is enough.
    chunks.searched.add(key)
    is_compressed = chunk.kind == b"zTXt"
    if chunk.kind == b"iTXt":
        is_compressed = rest[:1] == b"\1"
        rest = rest[2:].split(b"\0", 2)[-1]
    elif is_compressed:
        rest = rest[1:]
    if is_compressed:
        try:
            rest = zlib.decompressobj().decompress(rest, _MAX_TEXT_BYTES)
        except zlib.error:
            return
    if key == _XMP:
        chunks.xmp = rest
    elif not chunks.exif:
        # Three lines, "", "exif" and the length, and then the data in hexadecimal digits.
        try:
            chunks.exif = bytes.fromhex("".join(rest.decode("ascii").split("\n")[3:]))
        except ValueError:
            return
        chunks.exif = chunks.exif.removeprefix(b"Exif\0\0")


def _over_black(palette: bytes, alphas: bytes) -> bytes:
    """Return the palette as it looks over black, with an alpha for each of its first colours."""
    if not palette or len(palette) % 3 or len(palette) > 3 * 256:
        raise InvalidImage("damaged PNG: its palette PLTE is missing or of a wrong length")
    colours = bytearray(palette)
    for index, alpha in enumerate(alphas[: len(palette) // 3]):
        for sample in range(3 * index, 3 * index + 3):
            colours[sample] = (colours[sample] * alpha + 127) // 255
    return bytes(colours)


def _transparent_colour(transparency: bytes, colour: int, depth: int) -> tuple[int, ...] | None:
    """Return the samples of the transparent colour; None without one, or where tRNS is of a wrong length."""
    if colour not in (_GREY, _RGB) or len(transparency) != 2 * _SAMPLES[colour]:
        return None
    # Only the lower bits count.
    return tuple(
        sample & ((1 << depth) - 1) for sample in struct.unpack(f">{_SAMPLES[colour]}H", transparency)
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return _CHUNK_START.pack(len(data), kind) + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))
