"""The colours of a map: one for each class, or a scale for numbers."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Colouring", "coloured"]

# Okabe and Ito (2008), which people with colour blindness can tell apart, and lighter ones after them.
_CLASSES = (
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b8a600", "#332288",
    "#882255", "#117733", "#88ccee", "#aa4499",
)  # fmt: skip
_OTHERS = "#bbbbbb"
_PLAIN = "#0072b2"
# From dark to light, as a print in grey shows it too.
_SCALE = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))


@dataclass(frozen=True, slots=True)
class Colouring:
    """The colour of each row, and the legend: pairs of a text and its colour, of classes or on a scale."""

    colours: Sequence[str]
    legend: Sequence[tuple[str, str]]
    is_scale: bool = False


def coloured(values: Sequence[Any] | None) -> Colouring:
    """Return colours for the values of a column; None gives all rows one colour.

    Up to 12 different values are classes. More different numbers are a scale. Of more texts, the 11 most
    frequent ones are classes, and the others are grey.
    """
    if values is None:
        return Colouring([], [])
    counts = Counter("" if value is None else str(value) for value in values)
    if len(counts) > len(_CLASSES) and all(_is_number(value) for value in values):
        return _on_scale([float(value) for value in values])
    named = sorted(counts, key=_natural)
    if len(counts) > len(_CLASSES):
        named = [text for text, _ in counts.most_common(len(_CLASSES) - 1)]
    by_text = dict(zip(named, _CLASSES, strict=False))
    legend = [(f"{text or '(none)'}: {counts[text]}", colour) for text, colour in by_text.items()]
    if len(named) < len(counts):
        others = sum(count for text, count in counts.items() if text not in by_text)
        legend.append((f"{len(counts) - len(named)} others: {others}", _OTHERS))
    texts = ("" if value is None else str(value) for value in values)
    return Colouring([by_text.get(text, _OTHERS) for text in texts], legend)


def _on_scale(values: Sequence[float]) -> Colouring:
    low, high = min(values), max(values)
    colours = [_scale_colour((value - low) / ((high - low) or 1.0)) for value in values]
    steps = [low + part * (high - low) for part in (0.0, 0.25, 0.5, 0.75, 1.0)]
    return Colouring(
        colours,
        [
            (f"{step:.4g}", _scale_colour(part))
            for step, part in zip(steps, (0, 0.25, 0.5, 0.75, 1), strict=True)
        ],
        is_scale=True,
    )


def _scale_colour(part: float) -> str:
    place = part * (len(_SCALE) - 1)
    index = min(int(place), len(_SCALE) - 2)
    low, high = _SCALE[index], _SCALE[index + 1]
    mixed = (round(a + (place - index) * (b - a)) for a, b in zip(low, high, strict=True))
    return "#{:02x}{:02x}{:02x}".format(*mixed)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def _natural(text: str) -> tuple[int, float, str]:
    try:
        return 0, float(text), text
    except ValueError:
        return 1, 0.0, text
