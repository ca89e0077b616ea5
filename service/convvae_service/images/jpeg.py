"""JPEG files: their size and orientation, and the same file without metadata, after ITU-T T.81 annex B."""

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from convvae_service.images.header import ImageHeader, InvalidImage
from convvae_service.images.jpeg_scans import MAX_SEGMENTS, check_scans
from convvae_service.images.orientation import UPRIGHT, picture_orientation

__all__ = ["JPEG_SIGNATURE", "read_jpeg", "without_metadata"]

JPEG_SIGNATURE = b"\xff\xd8\xff"
_START_OF_SCAN, _END_OF_IMAGE, _COMMENT = 0xDA, 0xD9, 0xFE
_APP0, _APP1, _APP14, _APP15 = 0xE0, 0xE1, 0xEE, 0xEF
# Markers without a segment: TEM, the restarts, a second start of the image, and 0, which is none.
_STANDALONE = frozenset({0x00, 0x01, *range(0xD0, 0xD9)})
# Sequential and progressive frames with Huffman coding.
_FRAMES = frozenset({0xC0, 0xC1, 0xC2})
_PROGRESSIVE = 0xC2
_OTHER_FRAMES = {
    # No browser shows it, and it takes up to 250 ns a byte: 15 s for a message of 64 MiB.
    **dict.fromkeys((0xC9, 0xCA), "JPEG with arithmetic coding"),
    **dict.fromkeys((0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7), "lossless or hierarchical JPEG"),
}
# The end of the image. It cannot be a part of the coded pixels.
_END = b"\xff\xd9"
_EXIF = b"Exif\0\0"
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
# The entry of the orientation is in the first segments. Each has at most 64 KiB.
_MAX_EXIF_BYTES = 1 << 20
# Longer openings have metadata, which are different in each file.
_MAX_REMEMBERED_BYTES = 1024
_AFTER_FILL = re.compile(rb"[^\xff]")
_CUT_SHORT = "image file is cut short"
_DAMAGED = "damaged JPEG: its header cannot be read"


class _Frame(NamedTuple):
    """The header of a frame."""

    height: int
    width: int
    components: int
    depth: int
    is_progressive: bool
    sampling: bytes  # factors of each component, across and down, in four bits each

    def held_bytes(self, scan_components: int) -> int:
        """Return the bytes that decoding holds at its peak.

        With several scans the decoder holds all coefficients beside the pixels, of 3 or 4 bytes. Afterwards
        the pixels are copied to a picture of 4 bytes.

        Args:
            scan_components: Number of components in the first scan.
        """
        pixels = self.width * self.height
        decoded = (4 if self.components == 4 else 3) * pixels
        is_whole = scan_components >= self.components and not self.is_progressive
        return decoded + (4 * pixels if is_whole else max(4 * pixels, 2 * self._num_coefficients()))

    def _num_coefficients(self) -> int:
        """Return the number of coefficients in whole units of the file (T.81, A.1.1 and A.2.4)."""
        across = max(factors >> 4 for factors in self.sampling) or 1
        down = max(factors & 15 for factors in self.sampling) or 1
        num_units = -(-self.width // (8 * across)) * -(-self.height // (8 * down))
        return num_units * 64 * sum((factors >> 4) * (factors & 15) for factors in self.sampling)


def read_jpeg(data: bytes) -> ImageHeader:
    """Return the header of a JPEG file.

    Raises:
        InvalidImage: The file ends before its pixels do, is of a kind that cannot be decoded, or has more
            segments or scans than real files have.
    """
    frame, orientation, scan, end = _recent.opening(data)
    if not check_scans(data, end, pixels=frame.width * frame.height) and data.rfind(_END, end) < 0:
        raise InvalidImage(_CUT_SHORT)
    return ImageHeader(
        width=frame.width,
        height=frame.height,
        channels=1 if frame.components == 1 else 3,
        orientation=orientation,
        content=data,
        held_bytes=frame.held_bytes(data[scan]),
        depth=frame.depth,
        has_black_ink=frame.components == 4,
    )


class _Opening(NamedTuple):
    """A file up to its coded pixels: frame, orientation, and start and end of its first scan's header."""

    frame: _Frame
    orientation: int
    scan: int
    end: int


class _Recent:
    """The opening of the last file. Files of a data set often begin alike: with one size and equal tables."""

    def __init__(self) -> None:
        self._known: tuple[bytes, _Opening] | None = None

    def opening(self, data: bytes) -> _Opening:
        """Return the opening of a file. It is read if the last file did not begin with the same bytes."""
        known = self._known  # another thread may replace it
        if known is not None and data.startswith(known[0]):
            return known[1]
        opening = _read_opening(data)
        if opening.end <= _MAX_REMEMBERED_BYTES:
            self._known = (data[: opening.end], opening)
        return opening


_recent = _Recent()


def _read_opening(data: bytes) -> _Opening:
    """Return the opening of a file. It does not depend on the bytes after its end."""
    exif, xmp = b"", b""
    frame: _Frame | None = None
    for marker, start, end in _segments(data):
        if marker == _START_OF_SCAN:
            if frame is None:
                raise InvalidImage(_DAMAGED)
            orientation = picture_orientation(exif, xmp) if exif or xmp else UPRIGHT
            return _Opening(frame, orientation, start, end)
        if marker in _FRAMES:
            frame = frame or _frame(data[start:end], is_progressive=marker == _PROGRESSIVE)
        elif marker == _APP1:
            content = data[start:end]
            if content.startswith(_EXIF) and len(exif) < _MAX_EXIF_BYTES:
                exif += content[len(_EXIF) :]
            elif content.startswith(_XMP):
                xmp = content[len(_XMP) :]
        elif marker in _OTHER_FRAMES:
            raise InvalidImage(f"{_OTHER_FRAMES[marker]}: save it as a baseline or progressive JPEG")
    raise InvalidImage(_CUT_SHORT)


def without_metadata(data: bytes) -> bytes:
    """Return a file from `read_jpeg` without metadata, and without odd bytes between its segments.

    Decoders refuse some files for metadata that they cannot read. Of the application segments, those that
    decide the colours stay: JFIF and Adobe.
    """
    kept = [b"\xff\xd8"]
    for marker, start, end in _segments(data):
        if marker == _START_OF_SCAN:
            kept.append(data[start - 4 :])
            break
        if _is_needed(marker, data[start:end]):
            kept.append(b"\xff" + bytes([marker]) + data[start - 2 : end])
    return b"".join(kept)


def _is_needed(marker: int, content: bytes) -> bool:
    """Return whether the segment decides the pixels."""
    if marker == _APP0:
        return content.startswith(b"JFIF\0") and len(content) >= 14
    if marker == _APP14:
        return content.startswith(b"Adobe") and len(content) >= 12
    return marker != _COMMENT and not _APP0 <= marker <= _APP15


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield (marker, start, end) of the contents of each segment up to the first scan.

    Raises:
        InvalidImage: A segment is damaged, or there are too many.
    """
    position, size = 2, len(data)
    for _ in range(MAX_SEGMENTS):
        if position >= size:
            return
        if data[position] != 0xFF:
            # Bytes between the segments are passed over, as libjpeg does.
            position = data.find(b"\xff", position)
            if position < 0:
                return
        position += 1
        if position < size and data[position] == 0xFF:
            found = _AFTER_FILL.search(data, position)
            position = found.start() if found else size
        if position + 2 >= size or data[position] == _END_OF_IMAGE:
            return
        marker, start = data[position], position + 3
        position += 1
        if marker in _STANDALONE:
            continue
        length = data[position] << 8 | data[position + 1]
        position += length
        if length < 2:
            raise InvalidImage(_DAMAGED)
        if position > size:
            return
        yield marker, start, position
    raise InvalidImage(f"JPEG of more than {MAX_SEGMENTS} segments before its pixels: save it again")


def _frame(content: bytes, *, is_progressive: bool) -> _Frame:
    """Return the header of a frame from its segment."""
    if len(content) < 6:
        raise InvalidImage(_DAMAGED)
    depth, height, width, components = struct.unpack_from(">BHHB", content)
    if depth != 8:
        raise InvalidImage(f"JPEG of {depth} bits per sample: save it with 8 bits")
    if not (height and width):
        raise InvalidImage(_DAMAGED)
    if components not in (1, 3, 4):
        raise InvalidImage(f"JPEG of {components} components: it must have 1, 3 or 4")
    sampling = content[7 : 6 + 3 * components : 3]
    if len(sampling) < components:
        raise InvalidImage(_DAMAGED)
    return _Frame(height, width, components, depth, is_progressive, sampling)
