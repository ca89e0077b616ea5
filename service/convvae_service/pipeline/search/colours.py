"""The colours of a map: one for each class, or a scale for numbers and times."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from convvae_service.images import printable

__all__ = ["Colouring", "coloured"]

# Okabe and Ito (2008), which people with colour blindness can tell apart, and lighter ones after them.
_CLASSES = (
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b8a600", "#332288",
    "#882255", "#117733", "#88ccee", "#aa4499",
)  # fmt: skip
_OTHERS = "#bbbbbb"
# From dark to light, as a print in grey shows it too.
_SCALE = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
_STEPS = (0.0, 0.25, 0.5, 0.75, 1.0)
_NO_VALUE = "(none)"
_MAX_CHARS = 24


@dataclass(frozen=True, slots=True)
class Colouring:
    """The colour of each row, and the legend: pairs of a text and its colour, of classes or on a scale."""

    colours: Sequence[str]
    legend: Sequence[tuple[str, str]]
    is_scale: bool = False


def coloured(values: Sequence[Any] | None) -> Colouring:
    """Return colours for the values of a column; None gives all rows one colour.

    Up to 12 different values are classes. More different numbers or times are a scale, on which missing,
    infinite and undefined ones are grey. Of more texts, the 11 most frequent ones are classes, and the others
    are grey.
    """
    if values is None:
        return Colouring([], [])
    texts = [_NO_VALUE if _is_missing(value) else str(value) for value in values]
    counts = Counter(texts)
    present = [value for value in values if not _is_missing(value)]
    if len(counts) > len(_CLASSES):
        if all(isinstance(value, int | float | Decimal) for value in present):
            return _on_scale([_number(value) for value in values])
        if all(isinstance(value, date | timedelta) for value in present):
            return _on_scale(values)
    named = sorted(counts, key=_natural)
    if len(counts) > len(_CLASSES):
        named = [text for text, _ in counts.most_common(len(_CLASSES) - 1)]
    by_text = dict(zip(named, _CLASSES, strict=False))
    legend = [(f"{_shortened(text)}: {counts[text]}", colour) for text, colour in by_text.items()]
    if len(named) < len(counts):
        others = sum(count for text, count in counts.items() if text not in by_text)
        legend.append((f"{len(counts) - len(named)} others: {others}", _OTHERS))
    return Colouring([by_text.get(text, _OTHERS) for text in texts], legend)


def _on_scale(values: Sequence[Any]) -> Colouring:
    """Return the colours of numbers, dates or times. None has no place on the scale."""
    present = [value for value in values if value is not None]
    low, high = min(present), max(present)
    extent = (high - low) or 1
    colours = [_OTHERS if value is None else _scale_colour((value - low) / extent) for value in values]
    legend = list(zip(_steps(low, extent), map(_scale_colour, _STEPS), strict=True))
    if len(present) < len(values):
        missing = "no finite value" if isinstance(low, int | float) else "no value"
        legend.append((f"{missing}: {len(values) - len(present)}", _OTHERS))
    return Colouring(colours, legend, is_scale=True)


def _steps(low: Any, extent: Any) -> list[str]:
    if isinstance(low, int) and isinstance(extent, int):
        # Whole numbers have whole steps, such as classes of 0 to 19.
        return [str(low + round(extent * part)) for part in _STEPS]
    if isinstance(low, float):
        return [f"{low + extent * part:.4g}" for part in _STEPS]
    exact = [str(low + extent * part) for part in _STEPS]
    in_seconds = [text.split(".")[0] for text in exact]
    return in_seconds if len(set(in_seconds)) == len(exact) else exact


def _scale_colour(part: float) -> str:
    place = part * (len(_SCALE) - 1)
    index = min(int(place), len(_SCALE) - 2)
    low, high = _SCALE[index], _SCALE[index + 1]
    mixed = (round(a + (place - index) * (b - a)) for a, b in zip(low, high, strict=True))
    return "#{:02x}{:02x}{:02x}".format(*mixed)


def _number(value: Any) -> int | float | None:
    if value is None or not math.isfinite(value):
        return None
    return value if isinstance(value, int) else float(value)


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _natural(text: str) -> tuple[int, float, str]:
    """Return a key that sorts numbers before texts, 9 before 10, and what has no value last."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    return (int(text == _NO_VALUE) + 1, 0.0, text) if math.isnan(number) else (0, number, text)


def _shortened(text: str) -> str:
    """Return a text on one line, without the middle of a long one: names differ at both ends."""
    text = printable(text) or "(empty)"
    half = _MAX_CHARS // 2
    return text if len(text) <= _MAX_CHARS else f"{text[: half - 1]}…{text[-half:]}"
