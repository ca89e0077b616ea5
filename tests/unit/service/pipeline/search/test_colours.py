"""The colours of columns of every type."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from convvae_service.pipeline.search.colours import coloured

GREY = "#bbbbbb"
DARK, LIGHT = "#440154", "#fde725"


@pytest.mark.parametrize("missing", [None, float("nan"), float("inf"), -float("inf")])
def test_numbers_without_a_value_are_grey_on_the_scale(missing: float | None) -> None:
    """The scale is that of the others, and the legend counts the grey ones."""
    colouring = coloured([*map(float, range(20)), missing, missing])
    assert colouring.is_scale
    assert colouring.colours[0] == DARK
    assert colouring.colours[19] == LIGHT
    assert colouring.colours[20:] == [GREY, GREY]
    assert colouring.legend[-1] == ("no finite value: 2", GREY)
    assert [text for text, _ in colouring.legend[:-1]] == ["0", "4.75", "9.5", "14.25", "19"]


@pytest.mark.parametrize(
    ("values", "ends"),
    [
        ([date(2024, 1, 1) + timedelta(days=day) for day in range(21)], ("2024-01-01", "2024-01-21")),
        (
            [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=hour) for hour in range(21)],
            ("2024-01-01 00:00:00+00:00", "2024-01-01 20:00:00+00:00"),
        ),
        ([timedelta(seconds=second) for second in range(21)], ("0:00:00", "0:00:20")),
        ([Decimal(number) / 4 for number in range(21)], ("0", "5")),
        (list(range(21)), ("0", "20")),
        ([2**63 + number for number in range(21)], (str(2**63), str(2**63 + 20))),
        ([timedelta(milliseconds=number) for number in range(21)], ("0:00:00", "0:00:00.020000")),
    ],
)
def test_many_times_and_numbers_of_every_type_are_a_scale(values: list[Any], ends: tuple[str, str]) -> None:
    """From the earliest to the latest, the smallest to the largest; None is grey."""
    colouring = coloured([*values, None])
    assert colouring.is_scale
    assert (colouring.legend[0], colouring.legend[4]) == ((ends[0], DARK), (ends[1], LIGHT))
    assert colouring.colours[20:] == [LIGHT, GREY]


def test_many_classes_of_whole_numbers_have_whole_steps() -> None:
    """4.75 is no class."""
    assert [text for text, _ in coloured(list(range(20))).legend] == ["0", "5", "10", "14", "19"]


@pytest.mark.parametrize(
    ("values", "legend"),
    [
        ([None, None], ["(none): 2"]),
        ([float("nan"), None, 1.0], ["1.0: 1", "(none): 2"]),
        ([True, None, False], ["False: 1", "True: 1", "(none): 1"]),
        (["", "nan", "10", "9"], ["9: 1", "10: 1", "(empty): 1", "nan: 1"]),
        ([["a"], [], ["a"]], ["['a']: 2", "[]: 1"]),
        (["a\nb", "\x1b[31m"], ["\\x1b[31m: 1", "a\\nb: 1"]),
    ],
)
def test_few_values_of_any_type_are_classes(values: list[Any], legend: list[str]) -> None:
    """Each is one line of the legend, what has no value is the last."""
    assert sorted(text for text, _ in coloured(values).legend) == sorted(legend)
    assert [text for text, _ in coloured(values).legend][-1] == legend[-1]


def test_long_names_keep_both_ends_and_their_count() -> None:
    """Names that differ at one end alone stay apart, and the legend fits its column."""
    names = [f"{end} of a very long name of a class" for end in "xy"]
    names += [name[::-1] for name in names]
    legend = [text for text, _ in coloured(names).legend]
    assert len(set(legend)) == 4
    assert all(text.endswith(": 1") and len(text) <= 27 for text in legend)
