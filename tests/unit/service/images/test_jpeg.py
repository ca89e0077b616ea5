"""JPEG files of every kind: colours, scans, orientation, metadata sound and broken, cut files."""

import io
import itertools
import struct
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from convvae_service.bundle import ImageShape, Resize
from convvae_service.images import InvalidImage, decode_file, jpeg_decoder, read_header

Turn = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
HEIGHT, WIDTH = 24, 40
# Loss of the codec on smooth pictures, in grey levels.
LOSS = 6


@pytest.fixture(params=["simplejpeg", "Pillow"], autouse=True)
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test with both decoders."""
    if request.param == "Pillow":
        monkeypatch.setattr(jpeg_decoder, "simplejpeg", None)
    else:
        pytest.importorskip("simplejpeg")


def smooth() -> NDArray[np.uint8]:
    """Return a smooth picture in colour."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([40 + 4 * x, 60 + 5 * y, 200 - 2 * x - y], axis=-1).astype(np.uint8)


def jpeg(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **{"quality": 98, "subsampling": 0, **options})
    return buffer.getvalue()


def decode(data: bytes) -> NDArray[np.uint8]:
    """Decode a file at its own size."""
    height, width, channels = read_header(data).shape
    shape = ImageShape(height=height, width=width, channels=channels)
    return decode_file(data, shape=shape, resize=Resize())


def distance(data: bytes, expected: NDArray[np.uint8]) -> int:
    return int(np.abs(decode(data).astype(int) - expected.astype(int)).max())


COLOUR = jpeg(Image.fromarray(smooth()))


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def with_segments(*segments: bytes) -> bytes:
    """Return the picture in colour with segments after its start."""
    return COLOUR[:2] + b"".join(segments) + COLOUR[2:]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"progressive": True},
        {"optimize": True},
        {"subsampling": 1},
        {"subsampling": 2},
        {"restart_marker_blocks": 1},
        {"keep_rgb": True},
        {"streamtype": 0, "dpi": (7, 9)},
    ],
)
def test_colours_and_scans(options: dict[str, object]) -> None:
    """Subsampling, progressive scans and restarts give the same picture."""
    assert distance(jpeg(Image.fromarray(smooth()), **options), smooth()) <= LOSS


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_grey_has_one_channel(options: dict[str, object]) -> None:
    """A file of one component is grey."""
    grey = smooth()[..., :1]
    data = jpeg(Image.fromarray(grey[..., 0]), **options)
    assert read_header(data).shape == (HEIGHT, WIDTH, 1)
    assert distance(data, grey) <= LOSS


def four_inks(planes: NDArray[np.uint8]) -> Image.Image:
    return Image.merge("CMYK", [Image.fromarray(planes[..., ink]) for ink in range(4)])


def test_four_inks() -> None:
    """CMYK is read as Adobe's programs write it, inverted; black ink darkens."""
    inks = np.concatenate([255 - smooth(), np.full((HEIGHT, WIDTH, 1), 51, np.uint8)], axis=-1)
    data = jpeg(four_inks(inks))
    assert read_header(data).shape[2] == 3
    assert distance(data, np.rint(smooth() * 0.8).astype(np.uint8)) <= LOSS


def test_four_inks_as_luma_and_chroma() -> None:
    """YCCK is told from CMYK by Adobe's segment, which therefore stays."""
    luma_chroma = np.asarray(Image.fromarray(255 - smooth()).convert("YCbCr"))
    planes = np.concatenate([luma_chroma, np.full((HEIGHT, WIDTH, 1), 255, np.uint8)], axis=-1)
    data = bytearray(jpeg(four_inks(255 - planes)))
    place = data.index(b"Adobe") + 11
    assert data[place] == 0
    data[place] = 2
    assert distance(bytes(data), smooth()) <= LOSS


def exif(orientation: int, order: str, *, kind: int = 3) -> bytes:
    start = b"II*\0" if order == "<" else b"MM\0*"
    value = struct.pack(f"{order}{'HI'[kind == 4]}", orientation).ljust(4, b"\0")
    entry = struct.pack(f"{order}HHI", 0x0112, kind, 1) + value
    return start + struct.pack(f"{order}IH", 8, 1) + entry + bytes(4)


@pytest.mark.parametrize("kind", [3, 4])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("orientation", range(10))
def test_every_orientation(orientation: int, order: str, kind: int) -> None:
    """Pictures are turned and mirrored as EXIF says; values that do not exist are passed over."""
    turns: dict[int, Turn] = {
        2: lambda image: image[:, ::-1],
        3: lambda image: image[::-1, ::-1],
        4: lambda image: image[::-1],
        5: lambda image: image.swapaxes(0, 1),
        6: lambda image: np.rot90(image, -1),
        7: lambda image: np.rot90(image, 2).swapaxes(0, 1),
        8: lambda image: np.rot90(image),
    }
    data = with_segments(segment(0xE1, b"Exif\0\0" + exif(orientation, order, kind=kind)))
    turn: Turn = turns.get(orientation, np.asarray)
    expected = turn(decode(COLOUR))
    assert read_header(data).shape == expected.shape
    np.testing.assert_array_equal(decode(data), expected)


XMP = b"http://ns.adobe.com/xap/1.0/\0"
ODD = {
    "EXIF without a directory": segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff"),
    "EXIF that is cut": segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\x09\0"),
    "EXIF of another byte order": segment(0xE1, b"Exif\0\0XX*\0\x08\0\0\0"),
    "EXIF with two orientations": segment(
        0xE1, b"Exif\0\0" + exif(6, "<").replace(b"\1\0\0\0\6", b"\2\0\0\0\6")
    ),
    "empty EXIF": segment(0xE1, b"Exif\0\0"),
    "XMP that is no text": segment(0xE1, XMP + bytes(range(256))),
    "large comment": segment(0xFE, b"x" * 65533) * 40,
    "empty comment": segment(0xFE, b""),
    "colour profile with a wrong number": segment(0xE2, b"ICC_PROFILE\0\7\3" + b"x" * 99),
    "short colour profile": segment(0xE2, b"ICC_PROFILE\0"),
    "several pictures, damaged": segment(0xE2, b"MPF\0II*\0\x08\0\0\0\1\0\1\xb0\7\0\4\0\0\0zzzz"),
    "several pictures, cut": segment(0xE2, b"MPF\0II"),
    "short JFIF": segment(0xE0, b"JFIF\0"),
    "short Adobe": segment(0xEE, b"Adobe"),
    "Photoshop, damaged": segment(0xED, b"Photoshop 3.0\x008BIM\4\4\xff\xff\xff\xff"),
    "unknown application": segment(0xEF, b"\0" * 1000),
    "fill bytes": b"\xff" * 9,
    "bytes between segments": segment(0xFE, b"") + b"odd",
}


@pytest.mark.parametrize("name", ODD)
def test_metadata_are_not_pixels(name: str) -> None:
    """Application segments and comments, sound or damaged, leave the picture as it is."""
    np.testing.assert_array_equal(decode(with_segments(ODD[name])), decode(COLOUR))


def test_xmp_turns_where_exif_does_not() -> None:
    """The orientation of XMP counts if EXIF has none."""
    xmp = segment(0xE1, XMP + b'<x tiff:Orientation="3"/>')
    np.testing.assert_array_equal(decode(with_segments(xmp)), decode(COLOUR)[::-1, ::-1])
    both = with_segments(xmp, segment(0xE1, b"Exif\0\0" + exif(4, ">")))
    np.testing.assert_array_equal(decode(both), decode(COLOUR)[::-1])


def test_bytes_after_the_end_are_passed_over() -> None:
    """Phones append a film or a second picture."""
    np.testing.assert_array_equal(decode(COLOUR + b"ftypmp4" * 100 + COLOUR), decode(COLOUR))


@pytest.mark.parametrize("progressive", [False, True])
def test_file_that_is_cut_anywhere_is_refused(progressive: bool) -> None:
    """The reason is true at every length, up to a missing end marker."""
    data = jpeg(Image.fromarray(smooth()), progressive=progressive)
    for length in range(3, len(data), 7):
        with pytest.raises(InvalidImage, match="image file is cut short"):
            decode(data[:length])
    for length in (len(data) - 2, len(data) - 1):
        with pytest.raises(InvalidImage, match="image file is cut short"):
            decode(data[:length])


def test_files_that_begin_alike_have_their_own_headers() -> None:
    """Another file in between changes nothing, whether its size, its turn, its tables or its end differ."""
    turned = with_segments(segment(0xE1, b"Exif\0\0" + exif(6, ">")))
    mirrored = with_segments(segment(0xE1, b"Exif\0\0" + exif(2, ">")))
    flat = jpeg(Image.fromarray(smooth()[:8]))
    coarse = jpeg(Image.fromarray(smooth()), quality=20, progressive=True)
    files = [COLOUR, turned, mirrored, flat, coarse, COLOUR + b"more", COLOUR[:-2] + b"\0\xff\xd9"]
    headers = [read_header(file) for file in files]
    assert [header.orientation for header in headers] == [1, 6, 2, 1, 1, 1, 1]
    assert [header.height for header in headers] == [24, 24, 24, 8, 24, 24, 24]
    for first, second in itertools.product(range(len(files)), repeat=2):
        assert read_header(files[first]) == headers[first]
        for length in (100, len(files[second]) // 2):
            with pytest.raises(InvalidImage, match="image file is cut short"):
                read_header(files[first][:length])
        assert read_header(files[second]) == headers[second]


def changed_frame(**changes: int) -> bytes:
    """Return the picture in colour with another frame header."""
    data = bytearray(COLOUR)
    start = data.index(b"\xff\xc0")
    places = {"marker": start + 1, "depth": start + 4, "height": start + 6, "components": start + 9}
    for name, value in changes.items():
        data[places[name]] = value
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (changed_frame(depth=12), "JPEG of 12 bits per sample: save it with 8 bits"),
        (changed_frame(marker=0xC3), "lossless or hierarchical JPEG: save it as a baseline or progressive"),
        (changed_frame(marker=0xF7), "lossless or hierarchical JPEG"),
        (changed_frame(components=2), "JPEG of 2 components: it must have 1, 3 or 4"),
        (changed_frame(height=0), "damaged JPEG: its header cannot be read"),
        (COLOUR[:2] + segment(0xDA, b"\0" * 6), "damaged JPEG: its header cannot be read"),
        (COLOUR[:2] + b"\xff\xe1\0\1" + COLOUR[2:], "damaged JPEG: its header cannot be read"),
        (COLOUR[:2] + b"\xff\xd9", "image file is cut short"),
    ],
)
def test_other_kinds_are_refused_by_name(data: bytes, message: str) -> None:
    """The reason says which kind of JPEG cannot be decoded."""
    with pytest.raises(InvalidImage, match=message):
        decode(data)
