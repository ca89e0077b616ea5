"""The numbers of settings in words: unit, value and allowed range, for help, messages and documents."""

from annotated_types import Ge, Gt, Le
from pydantic.fields import FieldInfo

from convvae.program.number_range import number_range

__all__ = ["allowed_numbers", "number_text", "unit_of"]

_UNITS_BY_ENDING = {"_s": "s", "_us": "us", "_bytes": "bytes", "_rows": "rows"}
_UNITS = {
    "lanes": "batches",
    "threads": "threads",
    "max_rows_per_call": "rows",
    "max_pixels_per_file": "pixels",
    "max_connections": "connections",
    "max_calls_per_connection": "calls",
    "access_log_sample": "share",
}
_BINARY = ((1 << 50, "PiB"), (1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def unit_of(name: str) -> str:
    """Return the unit of a setting, "" for words, paths and switches."""
    ending = next((unit for ending, unit in _UNITS_BY_ENDING.items() if name.endswith(ending)), "")
    return _UNITS.get(name, ending)


def number_text(value: float, unit: str) -> str:
    """Return a number as a flag takes it. A number of bytes is followed by its size: `65536 (64 KiB)`."""
    if isinstance(value, float):
        return f"{value:g}"
    size = _size(value) if unit == "bytes" else ""
    return f"{value} ({size})" if size else str(value)


def allowed_numbers(name: str, field: FieldInfo) -> str:
    """Return the numbers that a setting allows, such as `0.05 to 86400`, or "" if it has no limits."""
    unit = unit_of(name)
    bounds = {type(bound): bound for bound in field.metadata}
    low = bounds[Ge].ge if Ge in bounds else bounds[Gt].gt if Gt in bounds else None
    return number_range(
        low,
        bounds[Le].le if Le in bounds else None,
        with_low=Gt not in bounds,
        text=lambda number: number_text(number, unit),
    )


def _size(number: int) -> str:
    """Return bytes in the largest unit of which they are a multiple, "" below 1 KiB."""
    return next((f"{number // size} {name}" for size, name in _BINARY if number and number % size == 0), "")
