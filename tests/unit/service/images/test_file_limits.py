"""Limits on the parts of image files: real files keep them, and hostile files are refused before decoding."""

import contextlib
import io
import struct
import time
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from convvae_service.bundle import ImageShape, Resize
from convvae_service.images import InvalidImage, TooManyPixels, decode_file, read_header

SHAPE = ImageShape(height=8, width=8, channels=3)
MIB = 1 << 20
EXIF = b"Exif\0\0MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"


def saved(kind: str, **options: object) -> bytes:
    """Return a file of 64 x 48 pixels of noise."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


JPEG, PROGRESSIVE, PNG = saved("JPEG"), saved("JPEG", progressive=True), saved("PNG")
WEBP = saved("WEBP", lossless=True)


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def decoded(data: bytes) -> NDArray[np.uint8]:
    return decode_file(data, shape=SHAPE, resize=Resize())


def with_scans(count: int, *, side: int = 64) -> bytes:
    """Return a grey progressive file. After the first scan, each scan says that no block has more pixels."""
    frame = segment(0xC2, struct.pack(">BHHB", 8, side, side, 1) + b"\x01\x11\0")
    tables = segment(0xDB, b"\0" + b"\1" * 64)
    for table in (b"\x00", b"\x10"):  # one code of one bit, with the value 0
        tables += segment(0xC4, table + b"\1" + bytes(15) + b"\0")
    blocks = bytes(-(-((side // 8) ** 2) // 8))
    first = segment(0xDA, b"\1\1\0" + bytes([0, 0, 0])) + blocks
    later = segment(0xDA, b"\1\1\0" + bytes([1, 63, 0])) + blocks
    return b"\xff\xd8" + tables + frame + first + later * (count - 1) + b"\xff\xd9"


@pytest.mark.parametrize("quality", [1, 50, 100])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"optimize": True}, {"restart_marker_rows": 1}]
)
def test_jpeg_files_of_libjpeg_are_read(quality: int, subsampling: int, options: dict[str, object]) -> None:
    """Every way of writing scans keeps the limits."""
    decoded(saved("JPEG", quality=quality, subsampling=subsampling, **options))


def test_jpeg_with_much_metadata_is_read() -> None:
    """A profile of 3 MiB, a thumbnail, extended XMP of 16 MiB, and a second picture and a film at the end."""
    thumbnail = segment(0xE1, EXIF + JPEG)
    extended = segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + bytes(65_000)) * 256
    end = segment(0xE2, b"MPF\0")
    data = saved("JPEG", progressive=True, icc_profile=bytes(range(256)) * (3 * MIB // 256))
    data = data[:2] + thumbnail + extended + data[2:] + end + JPEG + b"\xff\xda" * MIB
    assert read_header(data).orientation == 6
    decoded(data)


def test_scans_between_tables_and_comments_are_counted_up_to_the_end_of_the_image() -> None:
    """Some encoders write a table before each scan."""
    data = with_scans(15)
    scan = data.rfind(b"\xff\xda")
    decoded(data[:scan] + segment(0xC4, b"\x10\1" + bytes(15) + b"\0") + segment(0xFE, b"text") + data[scan:])
    decoded(with_scans(100))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (with_scans(101), "JPEG of more than 100 scans, the limit for 4096 pixels"),
        (with_scans(14_000), "JPEG of more than 100 scans"),
        (with_scans(63, side=5656), "JPEG of more than 62 scans, the limit for 31990336 pixels"),
        (with_scans(21, side=16_000), "JPEG of more than 20 scans, the limit for 256000000 pixels"),
        (JPEG[:2] + segment(0xE5, b"") * 1_000_000 + JPEG[2:], "more than 1000 segments before its pixels"),
        (JPEG[:2] + b"\xff\xd0" * 1_000_000 + JPEG[2:], "more than 1000 segments before its pixels"),
        (JPEG[:-2] + segment(0xE2, b"") * 1_000_000 + JPEG[-2:], "more than 1000 segments between its scans"),
        (
            PROGRESSIVE[:-2] + segment(0xFE, b"") * 1001 + JPEG[-2:],
            "more than 1000 segments between its scans",
        ),
        (JPEG[:-2] + b"\xff\x01" * 1001 + JPEG[-2:], "more than 1000 segments between its scans"),
        (JPEG.replace(b"\xff\xc0", b"\xff\xc9", 1), "JPEG with arithmetic coding"),
        (
            PNG[:33] + chunk(b"prVt") * 1_000_000 + PNG[33:],
            r"PNG of more than 21\d\d\d chunks, the limit for 12\d+ bytes",
        ),
        (PNG[:33] + chunk(b"IDAT") * 1_000_000 + PNG[33:], "PNG of more than"),
        (WEBP + (b"abcd" + bytes(4)) * 1_000_000, "WebP of more than"),
    ],
)
def test_files_of_too_many_parts_are_refused_at_once(data: bytes, reason: str) -> None:
    """Each reason has the limit. The file is read no further than to the limit."""
    if data[:4] == b"RIFF":
        data = data[:4] + struct.pack("<I", len(data) - 8) + data[8:]
    start_s = time.thread_time()
    with pytest.raises(InvalidImage, match=reason):
        decoded(data)
    assert time.thread_time() - start_s < 0.5


@pytest.mark.parametrize("filling", [b"\xff", b"\0", b"\xff\0", b"\xff\xd3", b"\xff\xff\0"])
@pytest.mark.parametrize("place", [2, len(JPEG) - 2], ids=["before the frame", "in the pixels"])
def test_jpeg_filled_with_millions_of_bytes_is_read_in_little_time(filling: bytes, place: int) -> None:
    """Filling is passed over without a step of Python for each byte."""
    data = JPEG[:place] + filling * (16 * MIB // len(filling)) + JPEG[place:]
    start_s = time.thread_time()
    with contextlib.suppress(InvalidImage):  # a restart counts as a segment
        read_header(data)
    assert time.thread_time() - start_s < 1.0


def test_long_exif_and_xmp_take_little_time() -> None:
    """A file has many segments of EXIF, or a directory of many entries."""
    many = segment(0xE1, b"Exif\0\0" + bytes(65_000)) * 900
    entries = segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + bytes(65_000))
    for metadata in (many, entries * 900):
        start_s = time.thread_time()
        decoded(JPEG[:2] + metadata + JPEG[2:])
        assert time.thread_time() - start_s < 1.0


def divided_png(size: int) -> bytes:
    """Return a PNG of noise whose chunks of pixels have this many bytes."""
    pixels = np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), np.uint8)
    packed = zlib.compress(np.pad(pixels.reshape(1000, -1), ((0, 0), (1, 0))).tobytes(), 0)
    parts = b"".join(
        chunk(b"IDAT", part) for part in (packed[i : i + size] for i in range(0, len(packed), size))
    )
    return (
        PNG[:8] + chunk(b"IHDR", struct.pack(">IIBBBBB", 1000, 1000, 8, 2, 0, 0, 0)) + parts + chunk(b"IEND")
    )


@pytest.mark.parametrize("size", [2048, 8192, 65_536])
def test_png_of_many_chunks_of_pixels_is_read(size: int) -> None:
    """Encoders write chunks of 8 KiB or more; smaller ones are read too."""
    decoded(divided_png(size))


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_long_animation_is_its_first_frame(kind: str) -> None:
    """Three thousand frames of some bytes keep the limit."""
    frames = [Image.new("L", (8, 8), value % 256) for value in range(3000)]
    buffer = io.BytesIO()
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:])
    assert decoded(buffer.getvalue()).max() < 8


def packed_text(make: Callable[[bytes], bytes]) -> bytes:
    text = zlib.compress(bytes(MIB))
    return PNG[:33] + make(text) * 5000 + PNG[33:]


@pytest.mark.parametrize(
    "make",
    [
        lambda text: chunk(b"zTXt", b"Raw profile type exif\0\0" + text),
        lambda text: chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + text),
    ],
)
def test_packed_texts_are_unpacked_once(make: Callable[[bytes], bytes]) -> None:
    """Five thousand texts of a MiB each would take 5 GB."""
    start_s = time.thread_time()
    decoded(packed_text(make))
    assert time.thread_time() - start_s < 1.0


def png_of(width: int, height: int) -> bytes:
    """Return a grey PNG that is black."""
    packed = zlib.compress(bytes((width + 1) * height), 9)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return PNG[:8] + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND")


@pytest.mark.parametrize(
    "data",
    [
        WEBP[:12] + struct.pack("<4sI", b"VP8X", 10) + bytes(4) + b"\xff\x0f\0\xff\x0f\0" + WEBP[12:],
        png_of(1, 2_000_000),
        png_of(2_000_000, 1),
    ],
    ids=["WebP", "tall", "wide"],
)
def test_a_file_that_takes_too_much_memory_is_refused(data: bytes) -> None:
    """The decoder's memory is known from the header. Resizing has tables for each row and column."""
    if data[:4] == b"RIFF":
        data = data[:4] + struct.pack("<I", len(data) - 8) + data[8:]
    with pytest.raises(
        TooManyPixels, match=r"\d takes \d+ MiB to decode, more than the limit of \d+ MiB for"
    ):
        decode_file(
            data, shape=SHAPE, resize=Resize(), max_pixels=16_777_216 if data[:1] == b"R" else 2_000_000
        )


def test_small_pictures_may_take_more_memory_for_each_pixel() -> None:
    """A limit of few pixels leaves room for every format."""
    for data in (JPEG, PROGRESSIVE, PNG, WEBP):
        decode_file(data, shape=SHAPE, resize=Resize(), max_pixels=64 * 48)
