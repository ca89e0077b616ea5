"""The values of rows by their numbers."""

from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from convvae_service.pipeline.errors import BadUse
from convvae_service.pipeline.result import Result
from convvae_service.pipeline.search.rows import column_values


def result_of(column: pa.Array) -> Result:
    """Return a result with this column alone, in batches of two rows."""
    table = pa.table({"x": column})
    return Result([Path("x")], len(table), {}, table.schema, lambda *_: iter(table.to_batches(2)))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (pa.timestamp("ns", "UTC"), datetime(1970, 1, 1, 0, 0, 1, 2, tzinfo=UTC)),
        (pa.duration("ns"), timedelta(seconds=1, microseconds=2)),
        (pa.time64("ns"), time(0, 0, 1, 2)),
        (pa.timestamp("us"), datetime(1970, 1, 1, 0, 16, 40, 2003)),
    ],
)
def test_times_are_python_objects_in_every_unit(kind: pa.DataType, expected: Any) -> None:
    """Nanoseconds need no pandas; they lose what is below a microsecond."""
    column = pa.array([0, 0, 0, 1_000_002_003, None], pa.int64()).cast(kind)
    found = column_values(result_of(column), "x", np.array([3, 4, 3]))
    assert found == [expected, None, expected]
    assert type(found[0]) is type(expected)


def test_a_year_beyond_pythons_is_an_error_with_the_column() -> None:
    """One line, no traceback."""
    column = pa.array([10**15], pa.int64()).cast(pa.timestamp("s"))
    with pytest.raises(BadUse, match="the column 'x' has a value that Python cannot hold"):
        column_values(result_of(column), "x", np.array([0]))
