"""The images that a caller may give, without a server."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convvae.errors import InvalidInput, Violation
from convvae.inputs.given_images import check_images
from convvae.inputs.images import FileImages, PixelImages, join_images
from convvae.results import Likelihood, Limits, ModelInfo

INFO = ModelInfo(
    model="tiny", version=1, precision="fp32", objective="vae", likelihood=Likelihood(name="bernoulli"),
    height=4, width=3, channels=1, latent_dim=2, capabilities=(), precisions=(), limits=Limits(),
    manifest_json="{}",
)  # fmt: skip
PIXELS = np.arange(12, dtype=np.uint8).reshape(4, 3)


def files_of(images: Any) -> list[bytes | Path]:
    """Return the files that stand for images."""
    checked = check_images(images)
    assert isinstance(checked, FileImages)
    return list(checked.files)


def pixels_of(file: bytes | Path) -> np.ndarray[Any, Any]:
    """Return the pixels in the bytes of a file."""
    assert isinstance(file, bytes)
    with Image.open(io.BytesIO(file)) as picture:
        return np.asarray(picture)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            np.zeros((2, 4, 3, 1), np.float32),
            r"dtype is float32.*\(images \* 255\).round\(\).astype\(np.uint8\)",
        ),
        (np.zeros((2, 4, 3, 1), bool), r"dtype is bool.*\(images \* 255\)"),
        (np.zeros((2, 4, 3, 1), np.int64), r"dtype is int64.*images.astype\(np.uint8\)"),
        (np.zeros((4, 3), np.uint8), r"one image; a batch of one is images\[np.newaxis\]"),
        (np.zeros((1, 2, 4, 3, 1), np.uint8), r"must be \(N, H, W, C\)"),
        (np.zeros((0, 4, 3, 1), np.uint8), "is empty"),
        ([], "the list is empty"),
        ([b"x", 5], r"images\[1\]: is int; give a path, the bytes of a file, a picture of Pillow or a"),
        (7, "got int; give a path, the bytes of a file"),
    ],
)
def test_images_that_cannot_be_sent_are_refused(images: Any, message: str) -> None:
    """Images of the wrong kind are refused, and the message says how to convert them."""
    with pytest.raises(InvalidInput, match=message):
        check_images(images)


def test_images_that_can_be_sent() -> None:
    """Arrays with and without a channel axis, and lists of bytes and paths, are accepted."""
    for shape in [(2, 4, 3, 1), (2, 4, 3)]:
        assert isinstance(check_images(np.zeros(shape, np.uint8)), PixelImages)
    files = check_images([b"x", bytearray(b"y"), memoryview(b"z"), Path("p.png")])
    assert isinstance(files, FileImages)
    assert list(files.files) == [b"x", b"y", b"z", Path("p.png")]


def test_paths_are_read_when_sent(tmp_path: Path) -> None:
    """Files that cannot be read are refused by their index."""
    (tmp_path / "a.png").write_bytes(b"abc")
    files = FileImages([tmp_path / "a.png", tmp_path / "none.png", b"d"])
    with pytest.raises(InvalidInput, match=r"files\[1\]: .*none.png: No such file"):
        files.row_bytes()


@pytest.mark.parametrize("given", ["p.png", Path("p.png")])
def test_a_path_is_one_image(given: Any) -> None:
    """A path, as a string or as `pathlib.Path`, is a batch of one, alone and in a list."""
    assert files_of(given) == files_of([given]) == [Path("p.png")]


def test_the_bytes_of_a_file_are_one_image() -> None:
    """Bytes of every kind are a batch of one."""
    for given in (b"x", bytearray(b"x"), memoryview(b"x")):
        assert files_of(given) == [b"x"]


def test_a_folder_stands_for_its_images(tmp_path: Path) -> None:
    """A folder gives its image files at any depth, sorted; other files and hidden ones are left out."""
    for name in ("b.png", "a/z.JPG", "a/b.webp", "notes.txt", ".hidden.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    expected = [tmp_path / name for name in ("a/b.webp", "a/z.JPG", "b.png")]
    assert files_of(tmp_path) == files_of(str(tmp_path)) == expected
    assert files_of([b"first", tmp_path, "last.png"]) == [b"first", *expected, Path("last.png")]


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    """The message names the folder, and counts what is in it instead."""
    (tmp_path / "notes.txt").write_bytes(b"x")
    with pytest.raises(InvalidInput, match=r"no images \(.jpg.*\) in .*; left out: 1 .txt"):
        check_images([tmp_path])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_a_picture_becomes_a_file_with_its_pixels(mode: str) -> None:
    """A picture of Pillow is sent as a PNG file of the same mode and pixels."""
    picture = Image.fromarray(PIXELS).convert("RGB" if mode == "P" else "L").convert(mode)
    for given in (picture, [picture]):
        (file,) = files_of(given)
        assert isinstance(file, bytes)
        with Image.open(io.BytesIO(file)) as stored:
            assert np.array_equal(np.asarray(stored.convert("RGBA")), np.asarray(picture.convert("RGBA")))


def test_other_colours_of_a_picture_become_rgb() -> None:
    """CMYK, which PNG does not have, is converted; floating-point pixels are refused."""
    picture = Image.fromarray(PIXELS).convert("CMYK")
    assert np.array_equal(pixels_of(files_of(picture)[0]), np.asarray(picture.convert("RGB")))
    with pytest.raises(InvalidInput, match=r"images\[1\]: is a picture of floating-point numbers"):
        check_images([b"x", Image.fromarray(PIXELS).convert("F")])


def test_a_picture_is_turned_upright(tmp_path: Path) -> None:
    """The orientation in a picture's EXIF data is applied, as for a file."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PIXELS).save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as picture:
        (file,) = files_of(picture)
    assert np.array_equal(pixels_of(file), np.rot90(PIXELS, -1))


def test_a_picture_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    """The message has the index of the picture."""
    data = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)).save(data, "PNG")
    (tmp_path / "cut.png").write_bytes(data.getvalue()[:-2000])
    with (
        Image.open(tmp_path / "cut.png") as picture,
        pytest.raises(InvalidInput, match=r"images\[1\]: is a picture that cannot be read"),
    ):
        check_images([b"x", picture])


def test_a_list_of_arrays_becomes_one_array() -> None:
    """Arrays of one shape are stacked; the first one of another shape or type is refused by its index."""
    checked = check_images([PIXELS, PIXELS + 1])
    assert isinstance(checked, PixelImages)
    assert np.array_equal(checked.array, np.stack([PIXELS, PIXELS + 1]))
    for other, message in [
        (PIXELS.T, r"images\[1\]: has the shape \(3, 4\), but images\[0\] has \(4, 3\)"),
        (PIXELS / 255, r"images\[1\]: the dtype is float64"),
        (PIXELS[0], r"images\[1\]: has the shape \(3,\); it must be \(H, W\)"),
        (np.stack([PIXELS] * 2, axis=-1), r"images\[1\]: has the shape \(4, 3, 2\)"),
    ]:
        with pytest.raises(InvalidInput, match=message):
            check_images([PIXELS, other])


def test_arrays_beside_files_keep_their_pixels() -> None:
    """In a mixed list an array is sent as a file, and must have the model's size."""
    checked = check_images([b"x", PIXELS])
    assert isinstance(checked, FileImages)
    assert np.array_equal(pixels_of(checked.files[1]), PIXELS)
    checked.check(INFO)
    with pytest.raises(InvalidInput, match=r"images\[1\]: is an array of shape \(3, 4\); model 'tiny' takes"):
        check_images([b"x", PIXELS.T]).check(INFO)


def test_arrays_of_other_libraries_are_read() -> None:
    """An object that numpy can read as an array is an array."""

    class Tensor:
        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            return PIXELS[np.newaxis]

    checked = check_images(Tensor())
    assert isinstance(checked, PixelImages)
    assert np.array_equal(checked.array, PIXELS[np.newaxis])


def test_errors_name_the_path_of_a_row() -> None:
    """A server's words on `files[1]` name the path, in the message and in each violation, once."""
    files = check_images([b"x", "a.png"])
    error = InvalidInput(
        "files[1]: not an image (and 1 more)",
        violations=[Violation("files[1]", "not an image"), Violation("files[0]", "the file is empty")],
        code="INVALID_ARGUMENT",
    )
    for named in (files.named(error), files.named(files.named(error))):
        assert named.message == "files[1]: a.png: not an image (and 1 more)"
        assert [str(each) for each in named.violations] == [
            "files[1]: a.png: not an image",
            "files[0]: the file is empty",
        ]
        assert named.code == "INVALID_ARGUMENT"


def test_joined_files_keep_their_names(tmp_path: Path) -> None:
    """Files that were read into memory are still named by their paths."""
    (tmp_path / "a.png").write_bytes(b"x")
    first = check_images(str(tmp_path / "a.png"))
    assert isinstance(first, FileImages)
    joined = join_images([first.in_memory(), FileImages([b"y"])])
    assert isinstance(joined, FileImages)
    assert joined.names == [str(tmp_path / "a.png"), ""]
