"""Constants of a condition, as Arrow values that can be compared with those of a column."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from convvae_service.images.location import first_line
from convvae_service.images.packages import import_package

__all__ = ["Constant", "as_array", "as_scalar"]

Constant = bool | int | float | str


def as_scalar(value: Constant, kind: Any) -> Any:
    """Return a constant as an Arrow scalar.

    Args:
        value: The constant. A text is a time for a column of times, in UTC if the column has a time zone. A
            number is exact for a column of decimals.
        kind: The Arrow type of the column, or None to take the constant as it is.

    Raises:
        ValueError: It does not fit the type, or no type of Arrow.
    """
    arrow = import_package("pyarrow")
    types = arrow.types
    try:
        if kind is not None and isinstance(value, str) and types.is_temporal(kind):
            if types.is_timestamp(kind) and kind.tz is not None and not _has_zone(value):
                return arrow.scalar(value).cast(arrow.timestamp(kind.unit)).cast(kind)
            return arrow.scalar(value).cast(kind)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if kind is not None and is_number and types.is_decimal(kind):
            return arrow.scalar(Decimal(str(value)))
        is_unsigned = isinstance(value, int) and value >= 1 << 63
        return arrow.scalar(value, arrow.uint64() if is_unsigned else None)
    except OverflowError:
        raise ValueError("it has more than 64 bits") from None
    except UnicodeError:
        raise ValueError("it is no text") from None
    except arrow.ArrowException as error:
        raise ValueError(first_line(error)) from None


def as_array(values: Sequence[Constant], kind: Any) -> Any:
    """Return constants as an Arrow array; see `as_scalar`."""
    arrow = import_package("pyarrow")
    scalars = [as_scalar(value, kind) for value in values]
    is_exact = kind is not None and (arrow.types.is_temporal(kind) or arrow.types.is_decimal(kind))
    is_floating = kind is not None and arrow.types.is_floating(kind)
    try:
        return arrow.array([scalar.as_py() for scalar in scalars], kind if is_exact or is_floating else None)
    except (arrow.ArrowException, ArithmeticError) as error:
        raise ValueError(first_line(error)) from None


def _has_zone(text: str) -> bool:
    """Return whether a time ends with a zone, such as `Z` or `+02:00`."""
    _, _, clock = text.replace(" ", "T").partition("T")
    return any(sign in clock for sign in "Zz+-")
