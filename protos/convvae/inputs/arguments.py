"""The caller's arguments, checked before a request is sent."""

import math
import operator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convvae.errors import InvalidInput, Violation
from convvae.results import ModelInfo

__all__ = [
    "MAX_LISTED",
    "MAX_SEED",
    "check_count",
    "check_first_row",
    "check_latents",
    "check_num_samples",
    "check_seed",
    "check_temperature",
    "check_width",
    "refuse",
]

MAX_SEED = 2**64 - 1
MAX_LISTED = 100  # Maximum number of violations in one error.
_MAX_INT32 = 2**31 - 1
_MAX_FLOAT32 = float(np.finfo(np.float32).max)


def refuse(field: str, description: str) -> InvalidInput:
    """Return the error for one refused argument."""
    return InvalidInput(f"{field}: {description}", violations=[Violation(field, description)])


def check_latents(latents: Any) -> NDArray[np.float32]:
    """Return `latents` as little-endian float32 of shape (N, Z).

    Raises:
        InvalidInput: The latents are not a matrix of numbers, are empty, or contain NaN or infinity.
    """
    array = np.asarray(latents)
    if array.dtype.kind not in "fiu":
        raise refuse("latents", f"the dtype is {array.dtype}; give float32")
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


def check_width(latents_NZ: NDArray[np.float32], info: ModelInfo) -> None:
    """Raise `InvalidInput` unless latent vectors have the model's dimension."""
    if latents_NZ.shape[1] != info.latent_dim:
        raise refuse(
            "latents", f"shape is {latents_NZ.shape}; model {info.model!r} takes (N, {info.latent_dim})"
        )


def check_count(count: Any) -> int:
    """Return `count` if it is an integer, at least 1. Otherwise raise `InvalidInput`."""
    return _integer("count", count, 1, 2**63)


def check_num_samples(num_samples: Any) -> int:
    """Return `num_samples` if it is an integer, at least 0. Otherwise raise `InvalidInput`."""
    return _integer("num_samples", num_samples, 0, _MAX_INT32)


def check_seed(seed: Any) -> int | None:
    """Return `seed` if it is None or an unsigned integer of 64 bits. Otherwise raise `InvalidInput`."""
    return None if seed is None else _integer("seed", seed, 0, MAX_SEED)


def check_first_row(first_row: Any, rows: int) -> int:
    """Return `first_row` if `rows` rows from there have 64-bit indices. Otherwise raise `InvalidInput`."""
    return _integer("first_row", first_row, 0, MAX_SEED + 1 - rows)


def check_temperature(temperature: Any) -> float:
    """Return `temperature` if it is a finite float32, at least 0. Otherwise raise `InvalidInput`."""
    try:
        value = float(temperature)
    except (TypeError, ValueError):
        raise refuse("temperature", f"is {temperature!r}; it must be a number") from None
    if not (math.isfinite(value) and 0 <= value <= _MAX_FLOAT32):
        raise refuse("temperature", f"is {value}; it must be a finite number, at least 0")
    return value


def _integer(name: str, value: Any, low: int, high: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise refuse(name, f"is {value!r}; it must be an integer") from None
    if isinstance(value, bool | np.bool_):
        raise refuse(name, f"is {value!r}; it must be an integer")
    if number < low:
        raise refuse(name, f"is {number}; it must be at least {low}")
    if number > high:
        raise refuse(name, f"is {number}; it must be at most {high}")
    return number
