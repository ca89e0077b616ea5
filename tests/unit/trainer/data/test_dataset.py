"""Data sets by name and by path: what is read, how it is split, what is refused."""

import contextlib
import gzip
import io
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from convvae_trainer.data.arrays import read_array_file, to_nhwc
from convvae_trainer.data.dataset import load_dataset, load_other
from convvae_trainer.data.pixel_hash import pixel_hashes
from convvae_trainer.data.sources import with_absolute_paths
from convvae_trainer.errors import BadData
from convvae_trainer.settings.config import Config


def picture(path: Path, *, size: tuple[int, int] = (12, 10), mode: str = "L", value: int = 100) -> Path:
    """Write a PNG of (width, height) in one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colour: Any = value if mode == "L" else (value, 0, 0)
    Image.new(mode, size, colour).save(path)
    return path


def load(path: Path, **settings: Any) -> Any:
    return load_dataset(Config(dataset=str(path), **settings))


def idx_bytes(array: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def test_digits_are_enlarged_and_split() -> None:
    """`digits` are 1,797 images of 32x32 with the whole range of levels, about a tenth of them held out."""
    dataset = load_dataset(Config(dataset="Digits"))
    assert dataset.train.shape == (1539, 32, 32, 1)
    assert dataset.test.shape == (168, 32, 32, 1)
    assert dataset.validation is not None
    assert dataset.validation.shape == (90, 32, 32, 1)
    assert dataset.validation_split == "90 of 1629 training images, by the hash of their pixels"
    assert (int(dataset.train.min()), int(dataset.train.max())) == (0, 255)
    assert dataset.split == (
        "168 of 1797 images are held out: the hash of their pixels falls into the lowest tenth"
    )
    assert dataset.train_labels is not None
    assert sorted(set(dataset.train_labels.tolist())) == list(range(10))


def test_the_split_is_the_same_every_time(blobs: Path) -> None:
    """The run's seed has no part in it, and all parts keep the order of the file."""
    first, second = load(blobs), load(blobs, seed=5)
    assert first.fingerprint() == second.fingerprint()
    images = np.load(blobs)
    is_test = pixel_hashes(images[..., None]) < 2**64 // 10
    np.testing.assert_array_equal(first.test[..., 0], images[is_test])
    validates = (pixel_hashes(images[..., None]) & 0xFFFFFFFF) < 2**32 // 20
    np.testing.assert_array_equal(first.train[..., 0], images[~is_test & ~validates])
    assert first.validation is not None
    np.testing.assert_array_equal(first.validation[..., 0], images[~is_test & validates])
    assert (len(first.train), len(first.validation), len(first.test)) == (69, 1, 10)


@pytest.mark.parametrize("suffix", [".npy", ".npz", "-idx3-ubyte", "-idx3-ubyte.gz"])
def test_array_files_give_the_same_images(tmp_path: Path, blobs: Path, suffix: str) -> None:
    """Every kind of array file gives the same data."""
    images = np.load(blobs)
    path = tmp_path / f"same{suffix}"
    if suffix == ".npy":
        np.save(path, images)
    elif suffix == ".npz":
        np.savez(path, anything=images, labels=np.arange(80))
    else:
        data = idx_bytes(images)
        path.write_bytes(gzip.compress(data) if suffix.endswith("gz") else data)
    assert load(path).fingerprint() == load(blobs).fingerprint()


def test_labels_follow_their_images(tmp_path: Path) -> None:
    """Labels of a .npz are split with the images."""
    values = np.arange(100, dtype=np.uint8)
    images = np.broadcast_to(values[:, None, None, None], (100, 8, 8, 3)).copy()
    np.savez(tmp_path / "a.npz", images=images, labels=values, other=values)
    dataset = load(tmp_path / "a.npz")
    np.testing.assert_array_equal(dataset.train_labels, dataset.train[:, 0, 0, 0])
    np.testing.assert_array_equal(dataset.test_labels, dataset.test[:, 0, 0, 0])


def test_labels_that_are_all_equal_are_remarked(tmp_path: Path) -> None:
    """Such labels are of no use, and most likely not meant."""
    images = np.random.default_rng(0).integers(256, size=(20, 8, 8), dtype=np.uint8)
    for name, labels in (("equal", np.full(20, 3)), ("two", np.arange(20) % 2)):
        np.savez(tmp_path / f"{name}.npz", images=images, labels=labels)
    assert load(tmp_path / "equal.npz").hints == ["all training images have the same label"]
    assert load(tmp_path / "two.npz").hints == []


def test_fractions_become_levels() -> None:
    """Floating-point images in 0..1 become 0 to 255, rounded; truth values become 0 and 255."""
    levels = to_nhwc(np.array([[[0.0, 0.5, 1.0]]]), name="a")
    assert levels[..., 0].tolist() == [[[0, 128, 255]]]
    assert to_nhwc(np.array([[[False, True]]]), name="a")[..., 0].tolist() == [[[0, 255]]]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (
            np.full((4, 8, 8), 1.5),
            "[0] has values from 1.5 to 1.5: images must be uint8, or floats in 0..1",
        ),
        (np.full((4, 8, 8), -0.25), "has values from -0.25 to -0.25"),
        (
            np.full((4, 8, 8), np.nan),
            "[0] has NaN values: images must be uint8, or floats in",
        ),
        (np.zeros((4, 8, 8), np.int32), "has the type int32: images must be uint8"),
        (np.zeros((4, 8)), "has the shape (4, 8): it must be (N, H, W)"),
        (np.zeros((4, 8, 8, 2), np.uint8), "has the shape (4, 8, 8, 2)"),
        (np.zeros((4, 3, 8, 8), np.uint8), "has the shape (4, 3, 8, 8)"),
        (np.zeros((4, 7, 8), np.uint8), "are 7x8: each side must be 8 to 256 pixels; --image-size"),
        (np.zeros((4, 8, 300), np.uint8), "are 8x300: each side must be 8 to 256 pixels"),
        (np.zeros((0, 8, 8), np.uint8), "has no images: its shape is (0, 8, 8)"),
        (
            np.zeros((1, 8, 8), np.uint8),
            "holds 1 images and no test images of its own: at least 3",
        ),
        (np.array([{}]), "holds Python objects, which are never loaded"),
    ],
)
def test_a_bad_array_is_refused(tmp_path: Path, array: Any, message: str) -> None:
    """An array that is none of images is refused with its file's name and what was found."""
    path = tmp_path / "bad.npy"
    np.save(path, array)
    with pytest.raises(BadData, match=r"bad\.npy") as raised:
        load(path)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"a": np.zeros((4, 8, 8)), "b": np.zeros((4, 8, 8))},
            "has the arrays a, b: name the array of",
        ),
        ({}, "has the arrays (none)"),
        ({"images": np.zeros((4, 8, 8)), "labels": np.zeros(3, int)}, "labels of"),
        (
            {"images": np.zeros((4, 8, 8)), "labels": np.zeros(4)},
            "float64 of shape (4,): 4 integers are needed, one for each",
        ),
    ],
)
def test_a_bad_npz_is_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    """A .npz whose arrays leave a doubt is refused."""
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(BadData) as raised:
        load(tmp_path / "bad.npz")
    assert message in str(raised.value)


@pytest.mark.parametrize("name", ["bad.npy", "bad.npz"])
@pytest.mark.parametrize("data", [b"", b"garbage", b"PK\x03\x04garbage", b"\x93NUMPY\x01\x00\x10\x00{'a'"])
def test_a_damaged_array_file_is_refused(tmp_path: Path, name: str, data: bytes) -> None:
    """A file that is no array file is refused, nothing of it is executed."""
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BadData, match=r"is not an \.np[yz] file, or is damaged|has the arrays"):
        load(tmp_path / name)


# Other jobs on the machine are no reason to fail.
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.booleans(), st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4)
)
def test_any_array_file_gives_images_or_one_error(
    tmp_path_factory: pytest.TempPathFactory, is_zip: bool, changes: list[tuple[int, int]]
) -> None:
    """Changed bytes in an array file never escape as another error, nor as anything but images."""
    images = np.zeros((3, 8, 8), dtype=np.uint8)
    buffer = io.BytesIO()
    if is_zip:
        np.savez(buffer, images=images, labels=np.arange(3))
    else:
        np.save(buffer, images)
    data = bytearray(buffer.getvalue())
    for place, value in changes:
        data[place % len(data)] = value
    path = tmp_path_factory.getbasetemp() / ("fuzzed.npz" if is_zip else "fuzzed.npy")
    path.write_bytes(bytes(data))
    with contextlib.suppress(BadData):
        assert read_array_file(path)[0].dtype == np.uint8


def test_a_truncated_array_file_is_refused(blobs: Path) -> None:
    """An array file that ends early is refused."""
    blobs.write_bytes(blobs.read_bytes()[:-100])
    with pytest.raises(BadData, match=r"is truncated|is damaged"):
        load(blobs)


def test_a_folder_gives_labels_by_its_first_level(tmp_path: Path) -> None:
    """Images at any depth are read, the first level names the classes, hidden and other files are left."""
    for number in range(6):
        picture(tmp_path / "a" / "deep" / f"{number}.png", value=10 + number)
        picture(tmp_path / "b" / f"{number}.png", value=20 + number)
    picture(tmp_path / ".hidden" / "x.png", size=(5, 5))
    (tmp_path / "a" / "notes.txt").write_text("no image")
    dataset = load(tmp_path)
    assert dataset.validation is not None
    assert len(dataset.train) + len(dataset.validation) + len(dataset.test) == 12
    assert dataset.image.as_tuple == (10, 12, 1)
    assert dataset.class_names == ("a", "b")
    assert dataset.train_labels is not None
    np.testing.assert_array_equal(dataset.train[:, 0, 0, 0] >= 20, dataset.train_labels == 1)


def test_colour_follows_the_files(tmp_path: Path) -> None:
    """One colour file makes all of them colour; without folders there are no labels."""
    for number in range(3):
        picture(tmp_path / f"{number}.png")
    picture(tmp_path / "z.png", mode="RGB")
    dataset = load(tmp_path)
    assert dataset.image.channels == 3
    assert dataset.train_labels is None


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    """A folder with no images says so."""
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(BadData, match=r"no images in .*JPEG, PNG or WebP"):
        load(tmp_path)


def test_mixed_sizes_name_two_files(tmp_path: Path) -> None:
    """Mixed sizes are refused with two files and their sizes, unless a size is given."""
    picture(tmp_path / "a.png", size=(12, 10))
    for number in range(3):
        picture(tmp_path / f"b{number}.png", size=(20, 16), value=number)
    with pytest.raises(BadData) as raised:
        load(tmp_path)
    message = str(raised.value)
    assert f"{tmp_path / 'a.png'} is 10x12, {tmp_path / 'b0.png'} is 16x20; give --image-size" in message
    assert load(tmp_path, image_size=(9, 8), validation_share=0.0).train.shape == (3, 9, 8, 1)


@pytest.mark.parametrize("damage", ["text", "truncated"])
def test_a_broken_picture_is_named(tmp_path: Path, damage: str) -> None:
    """A file that is no image, or ends early, is named."""
    for number in range(3):
        picture(tmp_path / f"{number}.png")
    buffer = io.BytesIO()
    Image.effect_noise((12, 10), 50).save(buffer, format="JPEG")
    data = b"no image" if damage == "text" else buffer.getvalue()[:-20]
    (tmp_path / "broken.jpg").write_bytes(data)
    with pytest.raises(
        BadData, match=r"broken\.jpg cannot be used: (not a JPEG, PNG or WebP|image file is cut short)"
    ):
        load(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnits", "unknown data set 'mnits': did you mean mnist"),
        ("xyzzyxyzzy", "unknown data set 'xyzzyxyzzy': give digits, or a torchvision set such as mnist"),
        ("./absent", "absent does not exist"),
        ("absent.npy", "absent.npy does not exist"),
    ],
)
def test_an_unknown_name_lists_near_ones(name: str, message: str) -> None:
    """A name that is none is refused with what is like it; a path, with the path."""
    with pytest.raises(BadData) as raised:
        load_dataset(Config(dataset=name))
    assert message in str(raised.value)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    """A file that is no array file is refused by its name."""
    (tmp_path / "a.csv").write_text("1,2")
    with pytest.raises(BadData, match=r"a\.csv is not a data set: give a folder of images, or an \.npy"):
        load(tmp_path / "a.csv")


def test_more_training_images_than_there_are_is_refused(blobs: Path) -> None:
    """`train_images` takes the first ones, some of which validate, and must not be more than there are."""
    dataset = load(blobs, train_images=20)
    assert dataset.split.endswith("; the first 20 training images are used")
    assert dataset.validation is not None
    assert (len(dataset.train), len(dataset.validation)) == (19, 1)
    whole = load(blobs, train_images=20, validation_share=0.0)
    np.testing.assert_array_equal(whole.train, load(blobs, validation_share=0.0).train[:20])
    assert (whole.validation, whole.validation_split) == (None, "none")
    message = r"train_images is 71, but .* has 70 training images: give --train-images 70, or fewer"
    with pytest.raises(BadData, match=message):
        load(blobs, train_images=71)


def test_parts_of_the_whole_are_resized(blobs: Path) -> None:
    """Arrays of another size are resized as pictures are."""
    assert load(blobs, image_size=(16, 24)).image.as_tuple == (16, 24, 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64, np.bool_])
def test_conversion_takes_little_memory(dtype: Any) -> None:
    """Besides its result it takes a block of rows, not copies of the whole."""
    random = np.random.default_rng(0)
    array = (random.random((3000, 32, 32), dtype=np.float32) * 1.0).astype(dtype)
    # In float16, the product would be rounded before it is rounded to a level.
    expected = np.rint(array.astype(np.promote_types(dtype, np.float32)) * 255).astype(np.uint8)
    tracemalloc.start()
    converted = to_nhwc(array, name="a")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(converted[..., 0], expected)
    assert peak < converted.nbytes + 40 * (1 << 20)
    array[2999, 5, 5] = np.nan if dtype != np.bool_ else True
    if dtype != np.bool_:
        with pytest.raises(BadData, match=r"a\[2999\] has NaN values"):
            to_nhwc(array, name="a")


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ("a" * 300 + "/b", "cannot be read: File name too long|does not exist"),
        ("~nobody-of-this-name/x", "does not exist: there is no such user's home folder"),
    ],
)
def test_a_path_that_cannot_be_is_refused(dataset: str, message: str) -> None:
    """Whatever the system says of it, the answer is one line."""
    config = Config(dataset=dataset)
    with pytest.raises(BadData, match=message):
        load_dataset(with_absolute_paths(config))


def test_paths_become_absolute_and_names_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings that a run keeps must mean the same in another folder."""
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "pictures" / "0.png")
    for typed, kept in (
        ("digits", "digits"),
        ("fashion-mnist", "fashion-mnist"),
        ("pictures", str(tmp_path / "pictures")),
        ("./pictures", str(tmp_path / "pictures")),
    ):
        config = with_absolute_paths(Config(dataset=typed, data_root="sets"))
        assert (config.dataset, config.data_root) == (kept, str(tmp_path / "sets"))


def test_other_data_are_evaluated_whole(blobs: Path) -> None:
    """Without a test split all images count; of the run's own data, those held out."""
    own = load(blobs)
    config = Config(dataset=str(blobs))
    (images, labels), split, whole = load_other(config, own="another")
    assert whole is None
    assert (len(images), labels, split) == (80, None, "all 80 images")
    (images, _), split, whole = load_other(config, own=own.fingerprint())
    assert whole is not None
    assert whole.fingerprint() == own.fingerprint()
    np.testing.assert_array_equal(images, own.test)
    assert split == own.split
