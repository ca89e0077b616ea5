from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from convvae_service.images import BadSource, ModelInput
from convvae_service.images.array_source import ArraySource


def test_rows_are_read_by_their_range(images: NDArray[np.uint8], tiny_input: ModelInput) -> None:
    """Ids are indices, and any range can be read at any time."""
    source = ArraySource("x.npy", images[..., 0])
    source.check(tiny_input)
    batch = source.read(range(7, 11), tiny_input)
    assert batch.ids == ["7", "8", "9", "10"]
    np.testing.assert_array_equal(batch.images, images[7:11])
    assert len(source) == 50


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_become_the_nearest_of_256_levels(
    dtype: Any, images: NDArray[np.uint8], tiny_input: ModelInput
) -> None:
    """Every grey level survives the conversion to 0..1 and back, as in training."""
    source = ArraySource("x.npy", (images / 255).astype(dtype))
    np.testing.assert_array_equal(source.read(range(50), tiny_input).images, images)


def test_booleans_become_black_and_white(tiny_input: ModelInput) -> None:
    """True is 255."""
    array = np.zeros((1, 8, 6), bool)
    array[0, 2, 3] = True
    batch = ArraySource("x.npy", array).read(range(1), tiny_input)
    assert batch.images[0, 2, 3, 0] == 255
    assert batch.images.sum() == 255


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.01, 1.01, 255.0])
def test_float_out_of_range_is_named_by_its_row(value: float, tiny_input: ModelInput) -> None:
    """The wrong row is named, in whichever batch it is."""
    array = np.zeros((20, 8, 6), np.float32)
    array[13, 1, 1] = value
    source = ArraySource("x.npy", array)
    source.read(range(10), tiny_input)
    with pytest.raises(
        BadSource,
        match=r"x.npy\[13\] has (values from .*|NaN values): images must be uint8, or floats",
    ):
        source.read(range(10, 20), tiny_input)


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
        ArraySource("x.npy", array)
    assert message in str(caught.value)


def test_shape_of_another_model_is_refused(tiny_input: ModelInput) -> None:
    """Both shapes are named."""
    with pytest.raises(BadSource, match=r"x\.npy has images of 6x8x3, model 'tiny' takes 8x6x1"):
        ArraySource("x.npy", np.zeros((2, 6, 8, 3), np.uint8)).check(tiny_input)
