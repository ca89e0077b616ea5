"""PNG files of every kind: depth, colour, transparency, interlacing, chunks, damage."""

import itertools
import struct
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray

from convvae_service.bundle import ImageShape, Resize
from convvae_service.images import InvalidImage, decode_file, pillow_decoder, read_header
from support.png_file import SIGNATURE, chunk, png_file, scanlines

GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
SAMPLES = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGB_ALPHA: 4}
KINDS = [
    *itertools.product((GREY,), (1, 2, 4, 8, 16)),
    *itertools.product((RGB, GREY_ALPHA, RGB_ALPHA), (8, 16)),
    *itertools.product((PALETTE,), (1, 2, 4, 8)),
]
HEIGHT, WIDTH = 11, 9


@pytest.fixture(params=["small", "large"], autouse=True)
def size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test as for small and as for large pictures."""
    if request.param == "large":
        monkeypatch.setattr(pillow_decoder, "TINY_PIXELS", 0)


def random_samples(colour: int, depth: int, seed: int = 0) -> NDArray[np.uint16]:
    shape = (HEIGHT, WIDTH, SAMPLES[colour])
    return np.random.default_rng(seed).integers(0, 1 << depth, shape, np.uint16)


def palette(depth: int) -> NDArray[np.uint8]:
    return np.random.default_rng(9).integers(0, 256, (1 << depth, 3), np.uint8)


def in_eight_bits(samples: NDArray[np.uint16], depth: int, *, grey: bool) -> NDArray[np.int64]:
    wide = samples.astype(np.int64)
    if depth == 16:
        # 16-bit grey is rounded, and 16-bit colour and alpha keep their upper byte.
        return (wide + 128) // 257 if grey else wide >> 8
    return wide * 255 // ((1 << depth) - 1)


def reference(
    samples: NDArray[np.uint16], colour: int, depth: int, transparency: tuple[int, ...] = ()
) -> NDArray[np.uint8]:
    """Return the picture over black, computed from its samples."""
    if colour == PALETTE:
        alphas = np.full(1 << depth, 255)
        alphas[: len(transparency)] = transparency
        seen = np.rint(palette(depth) * alphas[:, None] / 255).astype(np.uint8)
        return np.asarray(seen[samples[..., 0]])
    values = in_eight_bits(samples, depth, grey=colour == GREY)
    if colour in (GREY_ALPHA, RGB_ALPHA):
        values = np.rint(values[..., :-1] * values[..., -1:] / 255).astype(np.int64)
    if transparency:
        values[(samples == transparency).all(axis=-1)] = 0
    return values.astype(np.uint8)


def decode(data: bytes) -> NDArray[np.uint8]:
    """Decode a file at its own size."""
    height, width, channels = read_header(data).shape
    shape = ImageShape(height=height, width=width, channels=channels)
    return decode_file(data, shape=shape, resize=Resize())


def declared(colour: int, depth: int, transparency: tuple[int, ...]) -> list[bytes]:
    if colour == PALETTE:
        return [chunk(b"PLTE", palette(depth).tobytes()), chunk(b"tRNS", bytes(transparency))]
    return [chunk(b"tRNS", struct.pack(f">{len(transparency)}H", *transparency))]


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("colour", "depth"), KINDS)
def test_every_depth_and_colour(colour: int, depth: int, interlaced: bool) -> None:
    """The pixels are those of the samples, and grey files have one channel, with alpha too."""
    samples = random_samples(colour, depth)
    before = [chunk(b"PLTE", palette(depth).tobytes())] if colour == PALETTE else []
    data = png_file(samples, depth=depth, colour=colour, interlaced=interlaced, before=before)
    expected = reference(samples, colour, depth)
    assert read_header(data).shape == (HEIGHT, WIDTH, 1 if colour in (GREY, GREY_ALPHA) else 3)
    np.testing.assert_array_equal(decode(data), expected)


@pytest.mark.parametrize(("colour", "depth"), [kind for kind in KINDS if kind[0] in (GREY, RGB, PALETTE)])
def test_transparent_pixels_are_black(colour: int, depth: int) -> None:
    """The colour of tRNS is black at every depth. Others stay, also those with the same upper byte."""
    samples = random_samples(colour, depth)
    samples[0] = samples[0, 0]
    samples[1] = samples[0, 0] ^ 1
    transparency = tuple(samples[0, 0].tolist())
    if colour == PALETTE:
        transparency = tuple(np.random.default_rng(3).integers(0, 256, 1 << depth).tolist())
    data = png_file(
        samples, depth=depth, colour=colour, before=declared(colour, depth, transparency), interlaced=True
    )
    np.testing.assert_array_equal(decode(data), reference(samples, colour, depth, transparency))
    if colour != PALETTE:
        assert (decode(data)[0] == 0).all()
        assert read_header(data).shape[2] == SAMPLES[colour]


def test_upper_bits_of_a_transparent_grey_do_not_count() -> None:
    """Of a colour in a 2-bit file, the two lower bits count."""
    samples = random_samples(GREY, 2)
    data = png_file(samples, depth=2, colour=GREY, before=[chunk(b"tRNS", b"\xff\xfd")])
    np.testing.assert_array_equal(decode(data), reference(samples, GREY, 2, (1,)))


def with_chunks(samples: NDArray[np.uint16], place: str, chunks: list[bytes]) -> bytes:
    if place == "before":
        return png_file(samples, depth=8, colour=GREY, before=chunks)
    return png_file(samples, depth=8, colour=GREY, after=chunks)


LARGE = b"\0" * (3 << 20)
METADATA = {
    "compressed text": [chunk(b"zTXt", b"c\0\0" + zlib.compress(LARGE))],
    "compressed international text": [chunk(b"iTXt", b"c\0\1\0\0\0" + zlib.compress(LARGE))],
    "large text": [chunk(b"tEXt", b"c\0" + LARGE.replace(b"\0", b"x"))],
    "many texts": [chunk(b"zTXt", b"c%d\0\0" % n + zlib.compress(LARGE[: 1 << 20])) for n in range(70)],
    "large XMP": [chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(LARGE))],
    "large ICC profile": [chunk(b"iCCP", b"p\0\0" + zlib.compress(LARGE))],
    "ICC profile of another compression": [chunk(b"iCCP", b"p\0\7" + b"x")],
    "empty ICC profile": [chunk(b"iCCP")],
    "text with a wrong checksum": [chunk(b"tEXt", b"a\0b", checksum=1)],
    "text of another compression": [chunk(b"zTXt", b"a\0\7b")],
    "XMP that does not decompress": [chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0xxx")],
    "profile that is not hexadecimal": [chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nx"))],
    "damaged EXIF": [chunk(b"eXIf", b"MM\0*\xff\xff\xff\xff")],
    "unknown chunk": [chunk(b"abCd", b"x" * 100)],
    "chunk with an odd name": [chunk(b"a\xff1 ", b"x")],
    **{
        f"{kind.decode()} of {size} bytes": [chunk(kind, b"\1" * size)]
        for kind in (b"tRNS", b"pHYs", b"gAMA", b"cHRM", b"sRGB", b"sBIT", b"bKGD", b"tIME", b"acTL", b"fcTL")
        for size in (0, 1, 3)
    },
    **{
        f"{kind.decode()} with a wrong checksum": [chunk(kind, b"\0\1" * 20, checksum=7)]
        for kind in (b"tRNS", b"pHYs", b"gAMA", b"cHRM", b"iCCP", b"eXIf", b"acTL", b"hIST")
    },
}


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("name", METADATA)
def test_metadata_are_not_pixels(name: str, place: str) -> None:
    """Ancillary chunks of any size, damaged or not, anywhere, leave the picture as it is."""
    samples = random_samples(GREY, 8)
    extra = METADATA[name]
    data = with_chunks(samples, place, extra)
    np.testing.assert_array_equal(decode(data), reference(samples, GREY, 8))


EXIF = b"MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"
ORIENTATIONS = {
    "eXIf": chunk(b"eXIf", EXIF),
    "XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation='6'/>".replace(b"'", b'"')),
    "raw profile": chunk(
        b"zTXt",
        b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n 38\n" + (b"Exif\0\0" + EXIF).hex().encode()),
    ),
}


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("name", ORIENTATIONS)
def test_orientation_in_every_form(name: str, place: str) -> None:
    """A picture that lies on its side is turned, wherever its file says so."""
    samples = random_samples(GREY, 8)
    data = with_chunks(samples, place, [ORIENTATIONS[name]])
    assert read_header(data).shape == (WIDTH, HEIGHT, 1)
    np.testing.assert_array_equal(decode(data), np.rot90(reference(samples, GREY, 8), -1))


def test_animation_is_its_default_image() -> None:
    """Later frames and their control chunks are passed over, also where their numbers are wrong."""
    samples = random_samples(RGB, 8)
    control = struct.pack(">IIIIIHHBB", 5, WIDTH, HEIGHT, 0, 0, 1, 10, 0, 0)
    frames = [chunk(b"fcTL", control), chunk(b"fdAT", b"\0\0\0\2" + zlib.compress(b"x"))]
    before = [chunk(b"acTL", struct.pack(">II", 2, 0)), chunk(b"fcTL", control)]
    data = png_file(samples, depth=8, colour=RGB, before=before, after=frames)
    np.testing.assert_array_equal(decode(data), reference(samples, RGB, 8))


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("missing", [1, WIDTH + 1, 50])
def test_missing_rows_are_refused(missing: int, interlaced: bool) -> None:
    """A whole zlib stream that is too short for the picture is not filled up with black."""
    samples = random_samples(GREY, 8)
    rows = scanlines(samples, 8, interlaced)
    data = png_file(samples, depth=8, colour=GREY, interlaced=interlaced, rows=rows[:-missing])
    with pytest.raises(InvalidImage, match=f"cut short: {missing} bytes of its pixels are missing"):
        decode(data)
    longer = png_file(samples, depth=8, colour=GREY, interlaced=interlaced, rows=rows + b"\0" * 99)
    np.testing.assert_array_equal(decode(longer), reference(samples, GREY, 8))


def test_file_that_is_cut_anywhere_is_refused() -> None:
    """The reason is true at every length."""
    data = png_file(random_samples(RGB, 8), depth=8, colour=RGB, before=[chunk(b"tEXt", b"a\0b")])
    for length in range(len(SIGNATURE), len(data)):
        with pytest.raises(InvalidImage, match="image file is cut short"):
            decode(data[:length])


def edited(kind: bytes, *, checksum: bool) -> bytes:
    """Return a palette file with one byte of a chunk changed, or of its checksum."""
    data = bytearray(
        png_file(
            random_samples(PALETTE, 8),
            depth=8,
            colour=PALETTE,
            before=[chunk(b"PLTE", palette(8).tobytes())],
        )
    )
    place = data.rindex(kind) + 4
    (length,) = struct.unpack_from(">I", data, place - 8)
    data[place + (length if checksum else 0)] ^= 0xFF
    return bytes(data)


@pytest.mark.parametrize("checksum", [False, True])
@pytest.mark.parametrize("kind", [b"IHDR", b"PLTE", b"IDAT"])
def test_damaged_critical_chunk_is_refused(kind: bytes, checksum: bool) -> None:
    """Header, palette and pixels count: the chunk is named."""
    with pytest.raises(InvalidImage, match=f"damaged PNG: its chunk {kind.decode()} has a wrong checksum"):
        decode(edited(kind, checksum=checksum))


@pytest.mark.parametrize(
    ("depth", "colour", "before", "rows", "message"),
    [
        (3, GREY, [], None, "its header has impossible values"),
        (4, RGB, [], None, "its header has impossible values"),
        (8, 5, [], None, "its header has impossible values"),
        (8, PALETTE, [], None, "its palette PLTE is missing or of a wrong length"),
        (8, PALETTE, [chunk(b"PLTE", b"1234")], None, "its palette PLTE is missing or of a wrong length"),
        (8, GREY, [chunk(b"CgBI", b"1234")], None, "its chunk CgBI is not part of the format"),
    ],
)
def test_impossible_picture_is_refused(
    depth: int, colour: int, before: list[bytes], rows: bytes | None, message: str
) -> None:
    """The reason names what is wrong."""
    samples = np.zeros((HEIGHT, WIDTH, SAMPLES.get(colour, 1)), np.uint16)
    with pytest.raises(InvalidImage, match=f"damaged PNG: {message}"):
        decode(png_file(samples, depth=depth, colour=colour, before=before, rows=rows))


def test_pixels_that_do_not_decompress_are_refused() -> None:
    """A chunk whose checksum is right may hold anything."""
    data = png_file(random_samples(GREY, 8), depth=8, colour=GREY)
    start = data.index(b"IDAT") - 4
    broken = data[:start] + chunk(b"IDAT", b"no zlib stream") + chunk(b"IEND")
    with pytest.raises(InvalidImage, match="damaged PNG: its pixels do not decompress"):
        decode(broken)
    with pytest.raises(InvalidImage, match="image file is cut short: it has no pixels"):
        decode(data[:start] + chunk(b"IEND"))
