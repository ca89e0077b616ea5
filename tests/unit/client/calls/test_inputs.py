from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convvae.calls import inputs
from convvae.calls.images import FileImages, PixelImages, check_images
from convvae.errors import InvalidInput
from convvae.model_name import ModelName


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
        (b"one file", "got one bytes; give a list"),
        (Path("x.png"), "give a list of file bytes or pathlib.Path"),
        ("x.png", "got one str; give a list"),
        (["x.png"], r"files\[0\]: is str; give the file's bytes or a pathlib.Path"),
        ([b"x", 5], r"files\[1\]: is int"),
        ([np.zeros((4, 3, 1), np.uint8)], r"np.stack\(images\)"),
        (7, "got int; give a uint8 array"),
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


@pytest.mark.parametrize(
    ("latents", "message"),
    [
        (np.zeros(4), r"one vector; a batch of one is latents\[np.newaxis\]"),
        (np.zeros((1, 2, 3)), r"must be \(N, Z\)"),
        (np.zeros((0, 4)), "is empty"),
        (np.zeros((2, 0)), "is empty"),
        (np.zeros((2, 2), complex), "dtype is complex128"),
        ([["a"]], "dtype is <U1"),
        ([[0, np.nan], [0, 0], [np.inf, 0]], r"latents\[0\] and 1 more rows: NaN, infinite"),
        ([[1e39, 0]], r"latents\[0\]: NaN, infinite, or beyond float32"),
    ],
)
def test_latents_that_cannot_be_sent_are_refused(latents: Any, message: str) -> None:
    """Latent vectors of the wrong shape, kind or value are refused, bad rows by their index."""
    with pytest.raises(InvalidInput, match=message):
        inputs.check_latents(latents)


def test_latents_become_little_endian_float32() -> None:
    """Doubles, integers, lists and other byte orders are accepted."""
    for latents in ([[1, 2]], np.array([[1.0, 2.0]]), np.array([[1, 2]], ">f4"), np.array([[1, 2]], np.int8)):
        array = inputs.check_latents(latents)
        assert array.dtype == np.dtype("<f4")
        assert array.tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("check", "value", "message"),
    [
        (inputs.check_count, 0, "count: is 0; it must be at least 1"),
        (inputs.check_count, -3, "count: is -3"),
        (inputs.check_count, 2.0, "count: is 2.0; it must be an integer"),
        (inputs.check_count, True, "count: is True"),
        (inputs.check_num_samples, -1, "num_samples: is -1"),
        (inputs.check_num_samples, 2**31, "num_samples: is 2147483648; it must be at most 2147483647"),
        (inputs.check_seed, -1, "seed: is -1"),
        (inputs.check_seed, 2**64, "seed: is 18446744073709551616"),
        (inputs.check_seed, "7", "seed: is '7'"),
        (inputs.check_temperature, -0.1, "temperature: is -0.1; it must be a finite number, at least 0"),
        (inputs.check_temperature, float("nan"), "temperature: is nan"),
        (inputs.check_temperature, float("inf"), "temperature: is inf"),
        (inputs.check_temperature, 1e39, "temperature: is 1e"),
        (inputs.check_temperature, "hot", "temperature: is 'hot'"),
    ],
)
def test_numbers_out_of_range_are_refused(check: Any, value: Any, message: str) -> None:
    """A number out of range is refused with its name and its range."""
    with pytest.raises(InvalidInput, match=message) as caught:
        check(value)
    assert isinstance(caught.value, ValueError)
    assert len(caught.value.violations) == 1


def test_first_row_leaves_room_for_the_rows() -> None:
    """The last row's index is a number of 64 bits."""
    assert inputs.check_first_row(2**64 - 5, 5) == 2**64 - 5
    with pytest.raises(InvalidInput, match="first_row"):
        inputs.check_first_row(2**64 - 4, 5)


def test_numpy_integers_are_whole_numbers() -> None:
    """Counts and seeds may be numpy's integers."""
    assert inputs.check_count(np.int32(3)) == 3
    assert inputs.check_seed(np.uint64(2**64 - 1)) == 2**64 - 1


def test_paths_are_read_when_sent(tmp_path: Path) -> None:
    """Files that cannot be read are refused by their index."""
    (tmp_path / "a.png").write_bytes(b"abc")
    files = FileImages([tmp_path / "a.png", tmp_path / "none.png", b"d"])
    with pytest.raises(InvalidInput, match=r"files\[1\]: .*none.png: No such file"):
        files.row_bytes()


@pytest.mark.parametrize(
    ("spec", "name"), [("", ("", 0)), ("mnist", ("mnist", 0)), ("a.b-c@12", ("a.b-c", 12))]
)
def test_model_names_are_parsed(spec: str, name: tuple[str, int]) -> None:
    """NAME, NAME@VERSION and the empty string are model names."""
    parsed = ModelName.parse(spec)
    assert (parsed.name, parsed.version) == name
    assert str(parsed) == spec


@pytest.mark.parametrize("spec", ["@3", "m@", "m@0", "m@-1", "m@x", "m@1@2", "m n", "m@9999999999999999999"])
def test_wrong_model_names_are_refused(spec: str) -> None:
    """Other strings are refused, and the message shows the valid forms."""
    with pytest.raises(InvalidInput, match="write NAME or NAME@VERSION"):
        ModelName.parse(spec)
