import inspect
import re

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from convvae_service import errors
from convvae_service.calls.status import refusal_of
from convvae_service.errors import InvalidInput, Overloaded, ServiceError, Violation

CLASSES = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, ServiceError) and kind is not ServiceError
]


def details(error: ServiceError) -> dict[str, object]:
    refusal = refusal_of(error)
    status = status_pb2.Status.FromString(refusal.details)
    assert (refusal.code, refusal.message) == (error.status, str(error))
    assert (status.code, status.message) == (grpc.StatusCode[error.status].value[0], str(error))
    found: dict[str, object] = {}
    for detail in status.details:
        name = detail.TypeName().rpartition(".")[2]
        found[name] = getattr(error_details_pb2, name).FromString(detail.value)
    return found


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_has_its_own_status_and_reason(kind: type[ServiceError]) -> None:
    """Each class names a gRPC status and a reason in capitals, and the docstring of the module shows it."""
    assert kind.status in grpc.StatusCode.__members__
    assert re.fullmatch(r"[A-Z_]+", kind.reason)
    assert errors.__doc__ is not None
    assert re.search(rf"{kind.__name__}\s+{kind.status}", errors.__doc__)


def test_reasons_are_distinct() -> None:
    """A reason names one class."""
    assert len({kind.reason for kind in CLASSES}) == len(CLASSES)


def test_overload_says_when_to_come_back() -> None:
    """The delay goes out as RetryInfo, to the nanosecond."""
    info = details(Overloaded("full", retry_delay_s=1.25))["RetryInfo"]
    assert isinstance(info, error_details_pb2.RetryInfo)
    assert (info.retry_delay.seconds, info.retry_delay.nanos) == (1, 250_000_000)


def rows_named(bad: error_details_pb2.BadRequest) -> set[int]:
    """Return all rows that a list names, by entries and by the ranges of its last entry."""
    rows: set[int] = set()
    for item in bad.field_violations:
        if item.field.endswith("]"):
            rows.add(int(item.field.partition("[")[2][:-1]))
        else:
            for first, last in re.findall(r"(\d+)(?:-(\d+))?", item.description):
                rows |= set(range(int(first), int(last or first) + 1))
    return rows


@given(st.sets(st.integers(0, 1023), min_size=1, max_size=1024), st.text(max_size=60))
def test_every_bad_row_is_named_within_the_size_of_a_header(rows: set[int], description: str) -> None:
    """However many rows of a call are bad, the answer fits, and names them or says that it is cut."""
    error = InvalidInput([Violation(f"files[{row}]", description) for row in sorted(rows)])
    bad = details(error)["BadRequest"]
    assert isinstance(bad, error_details_pb2.BadRequest)
    assert bad.ByteSize() <= 4500
    named = rows_named(bad)
    assert named == rows or (named < rows and bad.field_violations[-1].description.endswith("…"))


def test_all_rows_of_a_full_call_are_named() -> None:
    """A call of 1,024 bad files is answered in full, by ranges."""
    error = InvalidInput([Violation(f"files[{row}]", "not an image") for row in range(1024)])
    bad = details(error)["BadRequest"]
    assert isinstance(bad, error_details_pb2.BadRequest)
    assert rows_named(bad) == set(range(1024))


def test_few_bad_rows_each_have_their_description() -> None:
    """A short list is spelt out."""
    error = InvalidInput([Violation(f"files[{row}]", "not an image") for row in (3, 9)])
    bad = details(error)["BadRequest"]
    assert isinstance(bad, error_details_pb2.BadRequest)
    assert [(v.field, v.description) for v in bad.field_violations] == [
        ("files[3]", "not an image"),
        ("files[9]", "not an image"),
    ]
