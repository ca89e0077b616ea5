"""The scans of a JPEG file, counted before the pixels are decoded, after ITU-T T.81 annex B."""

import re

from convvae_service.images.header import InvalidImage

__all__ = ["MAX_SEGMENTS", "check_scans"]

# A segment has at most 64 KiB. The longest metadata of cameras and editors, such as depth maps and thermal
# pictures in APP1 to APP3 and colour profiles in APP2, are some MiB long: less than a hundred segments.
MAX_SEGMENTS = 1000
# Encoders write up to 15 scans (cjpeg 10, mozjpeg at most 15). Chromium stops at 100 as well.
_MAX_SCANS = 100
# Each scan of a progressive file visits every block again: up to 20 ms for 32 million pixels. This is 62
# scans of so many pixels.
_MAX_SCANNED_PIXELS = 2_000_000_000
_ALWAYS_ALLOWED_SCANS = 20
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
# A marker that is no restart. In coded pixels, 0xFF is followed by 0 or is a restart.
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
# A search keeps Python's lock: at most 15 ms for so many bytes.
_WINDOW_BYTES = 4 << 20


def check_scans(data: bytes, position: int, *, pixels: int) -> bool:
    """Count the scans and segments of a file up to the end of its image.

    Args:
        data: A JPEG file.
        position: The end of the header of its first scan.
        pixels: Width x height.

    Returns:
        Whether the end of the image was found.

    Raises:
        InvalidImage: There are too many scans or segments.
    """
    first = _MARKER.search(data, position, position + _WINDOW_BYTES)
    if first and data[first.end() - 1] == _END_OF_IMAGE:
        return True  # as in nearly all files
    most = min(_MAX_SCANS, max(_ALWAYS_ALLOWED_SCANS, _MAX_SCANNED_PIXELS // pixels))
    scans, segments = 1, 0
    while (position := _next_marker(data, position)) >= 0:
        marker = data[position + 1]
        position += 2
        if marker == _END_OF_IMAGE:
            return True
        if marker >= 0xC0:
            position += int.from_bytes(data[position : position + 2], "big")
        scans += marker == _START_OF_SCAN
        segments += 1
        if scans > most:
            raise InvalidImage(
                f"JPEG of more than {most} scans, the limit for {pixels} pixels: save it as a baseline JPEG"
            )
        if segments > MAX_SEGMENTS:
            raise InvalidImage(f"JPEG of more than {MAX_SEGMENTS} segments between its scans: save it again")
    return False


def _next_marker(data: bytes, position: int) -> int:
    """Return the position of the next marker, or -1."""
    while position < len(data):
        end = position + _WINDOW_BYTES
        if found := _MARKER.search(data, position, end + 1):
            return found.start()
        position = end
    return -1
