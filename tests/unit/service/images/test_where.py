"""Conditions on columns: every operator and type of column, missing values, odd names, and hostile texts."""

import datetime
from decimal import Decimal

import pyarrow as pa
import pytest

from convvae_service.images import BadSource
from convvae_service.images.where import Condition

DAYS = [datetime.datetime(2026, 1, 1 + day) for day in range(6)]
TABLE = pa.table(
    {
        "row": range(6),
        "i": [0, 1, 2, None, 4, 5],
        "small": pa.array(range(6), pa.uint8()),
        "large": pa.array([2**63 + row for row in range(6)], pa.uint64()),
        "f": [0.0, 1.5, float("nan"), None, 4.0, 5.0],
        "s": ["a", "b", None, "it's", "é", "`x`"],
        "b": [True, False, None, True, True, False],
        "kind": pa.array(["a", "b", None, "a", "b", "c"]).dictionary_encode(),
        "time": pa.array(DAYS, pa.timestamp("us")),
        "zoned": pa.array(DAYS, pa.timestamp("ns", "Europe/Berlin")),
        "day": [time.date() for time in DAYS],
        "price": [Decimal(f"{row}.25") for row in range(6)],
        "class": range(6),
        "my label": range(6),
        "a.b": range(6),
    }
)


def rows_of(where: str) -> list[int]:
    found: list[int] = TABLE.filter(Condition(where).expression(TABLE.schema))["row"].to_pylist()
    return found


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ("i == 1", [1]),
        ("i != 1", [0, 2, 4, 5]),
        ("1 <= i < 5 and i > 1", [2, 4]),
        ("i >= 4 or not b", [1, 4, 5]),
        ("i in (1, 2)", [1, 2]),
        ("i not in [1, 2]", [0, 4, 5]),
        ("not (i in {1, 2})", [0, 4, 5]),
        ("i is None", [3]),
        ("i is not None and f is not None", [0, 1, 2, 4, 5]),
        ("small in (1, 300)", [1]),
        ("small == -1", []),
        (f"large == {2**63 + 2}", [2]),
        ("f == 1.5", [1]),
        ("f in (0, 1.5)", [0, 1]),
        ("f < 1e400", [0, 1, 4, 5]),
        ("i == f", [0, 4, 5]),
        ("b", [0, 3, 4]),
        ("b == False", [1, 5]),
        ("s in ('a', 'é')", [0, 4]),
        ("s == 'it\\'s' or s == '`x`'", [3, 5]),
        ("kind == 'a'", [0, 3]),
        ("kind not in ('a', 'c')", [1, 4]),
        ("time > '2026-01-04'", [4, 5]),
        ("time == '2026-01-02 00:00:00'", [1]),
        ("'2026-01-05' <= zoned", [4, 5]),
        ("zoned == '2026-01-02T01:00:00+01:00'", [1]),
        ("day in ('2026-01-01', '2026-01-06')", [0, 5]),
        ("price == 2.25", [2]),
        ("price > 4", [4, 5]),
        ("price in (1.25, 2.25)", [1, 2]),
        ("`class` == 3", [3]),
        ("`my label` >= 4 and `a.b` != 5", [4]),
        ("1 == 1", [0, 1, 2, 3, 4, 5]),
        (" or ".join(["i == 1"] * 900), [1]),
    ],
)
def test_rows_that_meet_a_condition(where: str, rows: list[int]) -> None:
    """A row with a missing value meets no comparison. Times are texts, in UTC if the column has a zone."""
    assert rows_of(where) == rows


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("class == 3", "is not a condition such as label == 3, or `my label` == 3 for a name that is no"),
        ("i = 3", "is not a condition such as label == 3"),
        ("", "is not a condition"),
        ("`i == 3", "is not a condition"),
        ("i == 1; b", "is not a condition"),
        ("i == " + "9" * 5000, "is not a condition"),
        ("i == '" + "x" * 10_000 + "'", "is not a condition"),
        ("(" * 5000 + "b" + ")" * 4000, "is not a condition"),
        ("not " * 2000 + "b", "is nested too deeply: it may have 100 levels"),
        ("i == 99999999999999999999", "cannot have '99999999999999999999': it has more than 64 bits"),
        ("i in (1, -99999999999999999999)", "it has more than 64 bits"),
        ("i in (1, 'a')", "cannot have \"(1, 'a')\": Could not convert 'a'"),
        ("i in 1", "cannot have '1': it takes columns, numbers, texts, comparisons, in with a list such as"),
        ("i in (None,)", "cannot have 'None'"),
        ("s == '\\ud800'", "it is no text"),
        ("`my label` + 1 == 2", "cannot have '`my label` + 1'"),
        ("__import__('os').system('true')", "cannot have \"__import__('os').system('true')\""),
        ("(i := 3)", "cannot have 'i := 3'"),
        ("i == b'x'", "cannot have \"b'x'\""),
        ("time > 'soon'", "cannot have \"'soon'\": Failed to parse string: 'soon' as a scalar of type"),
        ("True", "cannot have 'True'"),
    ],
)
def test_text_that_is_no_condition_is_refused(where: str, message: str) -> None:
    """In one short line that names the part, and nothing in it is run."""
    with pytest.raises(BadSource) as caught:
        rows_of(where)
    assert message in str(caught.value)
    assert str(caught.value).startswith("--where ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
