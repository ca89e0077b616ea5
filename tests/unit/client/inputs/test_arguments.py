from typing import Any

import numpy as np
import pytest

from convvae.errors import InvalidInput
from convvae.inputs import arguments
from convvae.model_name import ModelName


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
        arguments.check_latents(latents)


def test_latents_become_little_endian_float32() -> None:
    """Doubles, integers, lists and other byte orders are accepted."""
    for latents in ([[1, 2]], np.array([[1.0, 2.0]]), np.array([[1, 2]], ">f4"), np.array([[1, 2]], np.int8)):
        array = arguments.check_latents(latents)
        assert array.dtype == np.dtype("<f4")
        assert array.tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("check", "value", "message"),
    [
        (arguments.check_count, 0, "count: is 0; it must be at least 1"),
        (arguments.check_count, -3, "count: is -3"),
        (arguments.check_count, 2.0, "count: is 2.0; it must be an integer"),
        (arguments.check_count, True, "count: is True"),
        (arguments.check_num_samples, -1, "num_samples: is -1"),
        (arguments.check_num_samples, 2**31, "num_samples: is 2147483648; it must be at most 2147483647"),
        (arguments.check_seed, -1, "seed: is -1"),
        (arguments.check_seed, 2**64, "seed: is 18446744073709551616"),
        (arguments.check_seed, "7", "seed: is '7'"),
        (arguments.check_temperature, -0.1, "temperature: is -0.1; it must be a finite number, at least 0"),
        (arguments.check_temperature, float("nan"), "temperature: is nan"),
        (arguments.check_temperature, float("inf"), "temperature: is inf"),
        (arguments.check_temperature, 1e39, "temperature: is 1e"),
        (arguments.check_temperature, "hot", "temperature: is 'hot'"),
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
    assert arguments.check_first_row(2**64 - 5, 5) == 2**64 - 5
    with pytest.raises(InvalidInput, match="first_row"):
        arguments.check_first_row(2**64 - 4, 5)


def test_numpy_integers_are_whole_numbers() -> None:
    """Counts and seeds may be numpy's integers."""
    assert arguments.check_count(np.int32(3)) == 3
    assert arguments.check_seed(np.uint64(2**64 - 1)) == 2**64 - 1


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
