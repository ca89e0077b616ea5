"""The caller's arguments, checked before anything is sent."""

import math
import operator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convvae.errors import InvalidInput, Violation

__all__ = [
    "MAX_LISTED",
    "MAX_SEED",
    "check_count",
    "check_first_row",
    "check_latents",
    "check_num_samples",
    "check_seed",
    "check_temperature",
    "refuse",
]

MAX_SEED = 2**64 - 1
MAX_LISTED = 100  # Violations named in one error; a million bad rows are not.
_MAX_INT32 = 2**31 - 1
_MAX_FLOAT32 = float(np.finfo(np.float32).max)


def refuse(field: str, description: str) -> InvalidInput:
    """Return the error for one bad argument."""
    return InvalidInput(f"{field}: {description}", violations=[Violation(field, description)])


def check_latents(latents: Any) -> NDArray[np.float32]:
    """Return `latents` as little-endian float32 of shape (N, Z).

    Raises:
        InvalidInput: Not a matrix of numbers, empty, or a row holds NaN or infinity.
    """
    array = np.asarray(latents)
    if array.dtype.kind not in "fiu":
        raise refuse("latents", f"their dtype is {array.dtype}; give float32")
    if array.ndim == 1:
        raise refuse("latents", f"shape {array.shape} is one vector; a batch of one is latents[np.newaxis]")
    if array.ndim != 2:
        raise refuse("latents", f"shape is {array.shape}; it must be (N, Z)")
    if 0 in array.shape:
        raise refuse("latents", f"shape {array.shape} is empty")
    with np.errstate(over="ignore"):
        array_NZ = array.astype("<f4", copy=False)
    bad = np.flatnonzero(~np.isfinite(array_NZ).all(axis=1))
    if bad.size:
        why = "NaN, infinite, or beyond float32"
        more = f" and {bad.size - 1} more rows" if bad.size > 1 else ""
        raise InvalidInput(
            f"latents[{bad[0]}]{more}: {why}",
            violations=[Violation(f"latents[{row}]", why) for row in bad[:MAX_LISTED]],
        )
    return array_NZ


def check_count(count: Any) -> int:
    """Return `count` when it is a whole number, 1 or above."""
    return _whole("count", count, 1, 2**63)


def check_num_samples(num_samples: Any) -> int:
    """Return `num_samples` when it is a whole number, 0 or above."""
    return _whole("num_samples", num_samples, 0, _MAX_INT32)


def check_seed(seed: Any) -> int | None:
    """Return `seed` when it is None or a whole number of 64 bits."""
    return None if seed is None else _whole("seed", seed, 0, MAX_SEED)


def check_first_row(first_row: Any, rows: int) -> int:
    """Return `first_row` when it and the `rows` from there are whole numbers of 64 bits."""
    return _whole("first_row", first_row, 0, MAX_SEED + 1 - rows)


def check_temperature(temperature: Any) -> float:
    """Return `temperature` when it is a finite float32, 0 or above."""
    try:
        value = float(temperature)
    except (TypeError, ValueError):
        raise refuse("temperature", f"is {temperature!r}; it must be a number") from None
    if not (math.isfinite(value) and 0 <= value <= _MAX_FLOAT32):
        raise refuse("temperature", f"is {value}; it must be a finite number, 0 or above")
    return value


def _whole(name: str, value: Any, low: int, high: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise refuse(name, f"is {value!r}; it must be a whole number") from None
    if isinstance(value, bool | np.bool_):
        raise refuse(name, f"is {value!r}; it must be a whole number")
    if number < low:
        raise refuse(name, f"is {number}; it must be {low} or above")
    if number > high:
        raise refuse(name, f"is {number}; it must be {high} or below")
    return number
