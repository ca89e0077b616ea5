import pickle
from typing import Any

import grpc
import pytest
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from convvae import errors
from convvae.errors import ConvvaeError, InvalidInput, Violation
from convvae.transport.status import CLASSES, from_rpc_error, rebase


class Failure:
    """An error like those of gRPC, with the methods that the client reads."""

    def __init__(
        self, code: grpc.StatusCode, details: str | None = "why", metadata: dict[str, Any] | None = None
    ) -> None:
        self._code, self._details, self._metadata = code, details, metadata

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str | None:
        return self._details

    def trailing_metadata(self) -> Any:
        return None if self._metadata is None else tuple(self._metadata.items())


def details(*messages: Any) -> dict[str, Any]:
    status = status_pb2.Status()
    for message in messages:
        status.details.add().Pack(message)
    return {"grpc-status-details-bin": status.SerializeToString()}


def test_every_status_has_a_class() -> None:
    """The table contains every status of gRPC."""
    assert set(CLASSES) == set(grpc.StatusCode)


@pytest.mark.parametrize("code", list(grpc.StatusCode))
def test_every_status_becomes_an_error_that_names_it(code: grpc.StatusCode) -> None:
    """The error has the status, the message and the request's id."""
    error = from_rpc_error(Failure(code, "some\nthing", {"x-request-id": "abc"}))
    assert type(error) is CLASSES[code]
    assert error.code == code.name
    assert error.request_id == "abc"
    assert error.message.startswith("some thing")
    assert str(error).endswith(f"({code.name}, request abc)")


def test_every_class_is_reached_or_raised_by_the_client() -> None:
    """Every class of the tree is used."""

    def below(kind: type[ConvvaeError]) -> set[type[ConvvaeError]]:
        return {kind}.union(*map(below, kind.__subclasses__()))

    raised_by_client = {errors.BadReply, errors.Cancelled, errors.ClientClosed, errors.VersionGone}
    raised_by_client.add(errors.ForkedDuringUse)
    bases = {ConvvaeError, errors.TryLater}
    assert below(ConvvaeError) == {*CLASSES.values(), errors.Overloaded} | raised_by_client | bases
    drawn = errors.__doc__ or ""
    assert all(kind.__name__ in drawn for kind in below(ConvvaeError))


def test_exhausted_with_a_delay_is_overload() -> None:
    """RESOURCE_EXHAUSTED with RetryInfo is Overloaded, with the retry delay."""
    info = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=1, nanos=500_000_000))
    error = from_rpc_error(Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, metadata=details(info)))
    assert type(error) is errors.Overloaded
    assert error.retry_delay_s == 1.5


def test_exhausted_without_a_delay_is_a_size() -> None:
    """RESOURCE_EXHAUSTED without RetryInfo is gRPC's size limit, and the error says what to do."""
    error = from_rpc_error(Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "Received message larger than max."))
    assert type(error) is errors.MessageTooLarge
    assert error.message == (
        "Received message larger than max; send fewer rows, or raise the limit of the server or the proxy"
    )


def test_violations_are_read() -> None:
    """BadRequest's entries become violations; a description left empty repeats the one before."""
    bad = error_details_pb2.BadRequest()
    for field, description in [
        ("files[0]", "no image"),
        ("files[2]", ""),
        ("files", "and rows 4-6, 9, …"),
        ("count", "is -1"),
    ]:
        bad.field_violations.add(field=field, description=description)
    error = from_rpc_error(Failure(grpc.StatusCode.INVALID_ARGUMENT, metadata=details(bad)))
    assert isinstance(error, InvalidInput)
    assert [str(violation) for violation in error.violations] == [
        *(f"files[{row}]: no image" for row in (0, 2, 4, 5, 6, 9)),
        "count: is -1",
    ]


@given(st.binary(max_size=200), st.text(max_size=20))
def test_details_that_cannot_be_read_are_left_out(data: bytes, text: str) -> None:
    """For any bytes in the trailing metadata, the status is reported."""
    metadata = {"grpc-status-details-bin": data, "x-request-id": text.encode()}
    error = from_rpc_error(Failure(grpc.StatusCode.INVALID_ARGUMENT, metadata=metadata))
    assert type(error) is InvalidInput


@given(seconds=st.integers(-(2**63), 2**63 - 1), nanos=st.integers(-(2**31), 2**31 - 1))
def test_delay_is_finite_and_not_negative(seconds: int, nanos: int) -> None:
    """The retry delay is never negative and never above an hour."""
    info = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=seconds, nanos=nanos))
    error = from_rpc_error(Failure(grpc.StatusCode.UNAVAILABLE, metadata=details(info)))
    assert error.retry_delay_s is not None
    assert 0 <= error.retry_delay_s <= 3600


@given(st.lists(st.text("and rows0123456789-, …", max_size=40), max_size=5))
def test_ranges_of_rows_are_bounded(descriptions: list[str]) -> None:
    """A list of ranges becomes violations, never more than a bounded number."""
    bad = error_details_pb2.BadRequest()
    for description in [*descriptions, "and rows 0-9999999999, 3"]:
        bad.field_violations.add(field="files", description=description)
    error = from_rpc_error(Failure(grpc.StatusCode.INVALID_ARGUMENT, metadata=details(bad)))
    assert isinstance(error, InvalidInput)
    assert 0 < len(error.violations) <= 10_100


@given(offset=st.integers(0, 10**6), row=st.integers(0, 10**6))
def test_rebase_moves_rows_only(offset: int, row: int) -> None:
    """Indices of rows move by the offset, in fields and messages; everything else stays."""
    error = InvalidInput(
        f"latents[{row}]: NaN in [1, 2]",
        violations=[Violation(f"latents[{row}]", "x[3]"), Violation("count", "is 5")],
        code="INVALID_ARGUMENT",
        request_id="r",
    )
    moved = rebase(error, offset)
    assert isinstance(moved, InvalidInput)
    assert moved.message == f"latents[{row + offset}]: NaN in [1, 2]"
    assert moved.violations == (Violation(f"latents[{row + offset}]", "x[3]"), Violation("count", "is 5"))
    assert (moved.code, moved.request_id) == ("INVALID_ARGUMENT", "r")


def test_errors_cross_processes() -> None:
    """An error keeps its attributes when it is pickled, as multiprocessing does."""
    error = InvalidInput(
        "no", violations=[Violation("count", "is 0")], code="INVALID_ARGUMENT", request_id="r"
    )
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is InvalidInput
    assert vars(copy) == vars(error)
    assert str(copy) == str(error)


def test_rebase_leaves_other_errors_alone() -> None:
    """Only refused rows have indices."""
    error = errors.Unavailable("files[3]")
    assert rebase(error, 10) is error
