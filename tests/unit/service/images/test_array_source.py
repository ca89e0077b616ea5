import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from convvae_service.images import BadSource, ModelInput, Source, SourceChanged, SourceOptions, open_source
from convvae_service.images.array_source import ArrayShard
from support.source_reading import read_source, rows_of


def test_rows_are_read_by_their_range(images: NDArray[np.uint8], tiny_input: ModelInput) -> None:
    """Ids are indices, and any range can be read at any time."""
    source = in_memory(images[..., 0])
    batch = read_source(source, tiny_input, start=7, count=4)
    assert batch.ids == [str(row) for row in range(7, 50)]
    np.testing.assert_array_equal(batch.images, images[7:])
    assert source.rows == 50


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_become_the_nearest_of_256_levels(
    dtype: Any, images: NDArray[np.uint8], tiny_input: ModelInput
) -> None:
    """Every grey level survives the conversion to 0..1 and back, as in training."""
    source = in_memory((images / 255).astype(dtype))
    np.testing.assert_array_equal(read_source(source, tiny_input).images, images)


def test_float16_is_rounded_once(tiny_input: ModelInput) -> None:
    """All numbers of float16 within 0 to 1 become the nearest level."""
    numbers = np.arange(1 << 15, dtype=np.uint16).view(np.float16)
    numbers = np.resize(numbers[numbers <= 1], (320, 8, 6))
    expected = np.rint(numbers.astype(np.float64) * 255).astype(np.uint8)
    images = read_source(in_memory(numbers), tiny_input).images
    np.testing.assert_array_equal(images[..., 0], expected)


def test_booleans_become_black_and_white(tiny_input: ModelInput) -> None:
    """True is 255."""
    array = np.zeros((1, 8, 6), bool)
    array[0, 2, 3] = True
    batch = read_source(in_memory(array), tiny_input)
    assert batch.images[0, 2, 3, 0] == 255
    assert batch.images.sum() == 255


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.01, 1.01, 255.0])
def test_float_out_of_range_is_named_by_its_row(value: float, tiny_input: ModelInput) -> None:
    """The wrong row is named, in whichever batch it is."""
    array = np.zeros((20, 8, 6), np.float32)
    array[13, 1, 1] = value
    first, second = rows_of(ArrayShard("x.npy", array), count=10)
    first.read(tiny_input)
    with pytest.raises(
        BadSource,
        match=r"x.npy\[13\] has (values from .*|NaN values): images must be uint8, or floats",
    ):
        second.read(tiny_input)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((8, 6), np.uint8), "x.npy has the shape (8, 6): it must be (N, H, W) or (N, H, W, C)"),
        (np.zeros((2, 8, 6, 4), np.uint8), "x.npy has the shape (2, 8, 6, 4): it must be (N, H, W) or"),
        (np.zeros((0, 8, 6), np.uint8), "x.npy has no images: its shape is (0, 8, 6)"),
        (np.zeros((2, 0, 6), np.uint8), "x.npy has no images: its shape is (2, 0, 6)"),
        (np.zeros((2, 8, 6), np.int64), "x.npy has the type int64: images must be uint8, or floats in 0..1"),
        (np.zeros((2, 8, 6), complex), "x.npy has the type complex128: images must be uint8"),
        (np.zeros((2, 8, 6), "U3"), "x.npy has the type <U3: images must be uint8"),
    ],
)
def test_array_that_holds_no_images_is_refused(array: NDArray[Any], message: str) -> None:
    """Shape and type are checked before any work."""
    with pytest.raises(BadSource) as caught:
        ArrayShard("x.npy", array)
    assert message in str(caught.value)


def test_shape_of_another_model_is_refused(tiny_input: ModelInput) -> None:
    """Both shapes are named."""
    with pytest.raises(BadSource, match=r"x\.npy has images of 6x8x3, model 'tiny' takes 8x6x1"):
        in_memory(np.zeros((2, 6, 8, 3), np.uint8)).check(tiny_input)


def in_memory(array: NDArray[Any]) -> Source:
    shard = ArrayShard("x.npy", array)
    return Source(name="x.npy", shards=[shard], image_shape=shard.image_shape)


@pytest.mark.parametrize("dtype", ["u1", "?", "f2", ">f4", "f8"])
@pytest.mark.parametrize("axes", [3, 4])
def test_file_in_order_of_fortran_has_the_same_images(
    dtype: str, axes: int, tmp_path: Path, images: NDArray[np.uint8], tiny_input: ModelInput
) -> None:
    """Libraries save transposed arrays so: first the values of all images at one pixel."""
    stored = (images if dtype == "u1" else images / 255).astype(dtype).reshape(*images.shape[:axes])
    for order in ("C", "F"):
        np.save(tmp_path / f"{order}.npy", np.asarray(stored, order=order))
    read = [read_source(open_source(tmp_path / f"{order}.npy"), tiny_input, count=7) for order in "CF"]
    assert open_source(tmp_path / "F.npy").shards[0]._stored.mapped.flags.f_contiguous  # type: ignore[attr-defined]
    np.testing.assert_array_equal(read[0].images, read[1].images)
    assert read[0].images.std() > 1


def test_a_read_may_return_less_than_it_was_asked_for(
    tmp_path: Path, images: NDArray[np.uint8], tiny_input: ModelInput, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system reads 2 GiB at once, and some disks less."""
    np.save(tmp_path / "x.npy", images)
    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", lambda file, left, at: preadv(file, [left[0][:100]], at))
    np.testing.assert_array_equal(read_source(open_source(tmp_path / "x.npy"), tiny_input).images, images)


@pytest.mark.parametrize("order", ["C", "F"])
def test_file_that_shrinks_while_it_is_read_is_an_error(
    order: Literal["C", "F"], tmp_path: Path, images: NDArray[np.uint8], tiny_input: ModelInput
) -> None:
    """The process goes on, where a mapped file would end it."""
    path = tmp_path / "x.npy"
    np.save(path, np.asarray(images, order=order))
    (shard,) = open_source(str(path)).shards
    cursor = shard.open(0)
    rows = cursor.take(50)
    assert rows is not None
    os.truncate(path, 1000)
    with pytest.raises(SourceChanged, match=r"x\.npy is shorter now than when it was opened"):
        rows.read(tiny_input)


def test_labels_of_an_archive_can_be_kept(
    tmp_path: Path, images: NDArray[np.uint8], tiny_input: ModelInput
) -> None:
    """The column label is the array labels, and a file without it is refused."""
    np.savez(tmp_path / "x.npz", images=images, labels=np.arange(50) % 7)
    source = open_source(str(tmp_path / "x.npz"), SourceOptions(keep=("label",)))
    assert read_source(source, tiny_input).kept == {"label": [row % 7 for row in range(50)]}
    assert str(source.columns["label"]) == "int64"
    np.save(tmp_path / "y.npy", images)
    with pytest.raises(BadSource, match=r"y\.npy has no column 'label' to keep: it has no columns"):
        open_source(str(tmp_path / "y.npy"), SourceOptions(keep=("label",)))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            np.arange(49),
            r"labels of shape \(49,\) and type int64: there must be one number or text",
        ),
        (np.arange(50)[:, None], r"labels of shape \(50, 1\)"),
        (np.array([b"a"] * 50), r"type \|S1: there must be one number or text for each of the 50 images"),
        (np.array(["a\ud800"] * 50), "has a label that is no text: it cannot be kept"),
        (np.array([None] * 50), "holds Python objects, which are never loaded"),
    ],
)
def test_labels_that_cannot_be_kept_are_refused(
    labels: NDArray[Any], message: str, tmp_path: Path, images: NDArray[np.uint8]
) -> None:
    """Before any row is read."""
    np.savez(tmp_path / "x.npz", images=images, labels=labels)
    with pytest.raises(BadSource, match=message):
        open_source(str(tmp_path / "x.npz"), SourceOptions(keep=("label",)))


def test_labels_of_64_bits_are_kept(tmp_path: Path, images: NDArray[np.uint8]) -> None:
    """Hashes as labels keep all of their bits."""
    np.savez(tmp_path / "x.npz", images=images, labels=np.full(50, 2**64 - 1, np.uint64))
    source = open_source(str(tmp_path / "x.npz"), SourceOptions(keep=("label",)))
    assert str(source.columns["label"]) == "uint64"
