"""The orientation of a picture, from its EXIF or XMP metadata. Metadata that cannot be read have none."""

import re
import struct

__all__ = ["UPRIGHT", "exif_orientation", "picture_orientation", "xmp_orientation"]

UPRIGHT = 1
_TAG = 0x0112
_BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
# Real files have less than a hundred entries.
_MAX_ENTRIES = 1000
# TIFF types of whole numbers: BYTE, SHORT, LONG.
_TYPES = {1: "B", 3: "H", 4: "I"}
_XMP_TAG = re.compile(rb"tiff:Orientation(?:=[\"']|>)([0-9])")


def picture_orientation(exif: bytes, xmp: bytes) -> int:
    """Return the orientation, 1 to 8, that EXIF states, or else XMP, or else 1."""
    return exif_orientation(exif) or xmp_orientation(xmp) or UPRIGHT


def exif_orientation(exif: bytes) -> int | None:
    """Return the orientation, 1 to 8, in EXIF data, or None. The data are a TIFF file."""
    try:
        order = _BYTE_ORDERS[exif[:4]]
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, start)
        for entry in range(start + 2, start + 2 + 12 * min(count, _MAX_ENTRIES), 12):
            tag, kind, values = struct.unpack_from(f"{order}HHI", exif, entry)
            if tag == _TAG and kind in _TYPES and values == 1:
                (value,) = struct.unpack_from(f"{order}{_TYPES[kind]}", exif, entry + 8)
                return _checked(value)
    except (KeyError, struct.error):
        pass
    return None


def xmp_orientation(xmp: bytes) -> int | None:
    """Return the orientation, 1 to 8, in XMP data, or None."""
    found = _XMP_TAG.search(xmp)
    return _checked(int(found[1])) if found else None


def _checked(value: int) -> int | None:
    return value if 1 <= value <= 8 else None
