"""Errors as the statuses that callers see, with `google.rpc` details."""

import re
from dataclasses import dataclass

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from convvae_service.errors import InvalidInput, Overloaded, ServiceError

__all__ = ["DETAILS_KEY", "DOMAIN", "Refusal", "refusal_of"]

# Metadata key of the details, as gRPC's libraries read it.
DETAILS_KEY = "grpc-status-details-bin"
DOMAIN = "convvae"
# Details travel in HTTP/2 headers, in base64. gRPC's clients may refuse headers above 8 KiB in total.
_MAX_DETAIL_BYTES = 4500
# The part of them that is kept for the ranges at the end of a list that is too long to spell out.
_RANGES_BYTES = 1500


@dataclass(frozen=True, slots=True)
class Refusal:
    """The status of a call that failed.

    `code` is the name of a gRPC status, such as `NOT_FOUND`. `details` is a serialised `google.rpc.Status`,
    empty if there is none.
    """

    code: str
    message: str
    details: bytes = b""


def refusal_of(error: ServiceError) -> Refusal:
    """Return the refusal that an error stands for."""
    return Refusal(error.status, str(error), _details(error))


def _details(error: ServiceError) -> bytes:
    """Return the serialised `google.rpc.Status` of an error.

    It always has an `ErrorInfo` with the reason. `RetryInfo` has the delay of `Overloaded`. `BadRequest`
    lists the violations of `InvalidInput`. In a long list, a description equal to the one before is left
    empty, and the last entry names the remaining rows as ranges.
    """
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)]
    if isinstance(error, Overloaded):
        delay = Duration()
        delay.FromNanoseconds(round(error.retry_delay_s * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    if isinstance(error, InvalidInput):
        details.append(_bad_request(error))
    status = status_pb2.Status(code=code_pb2.Code.Value(error.status), message=str(error))
    for detail in details:
        packed = Any()
        packed.Pack(detail)
        status.details.append(packed)
    return bytes(status.SerializeToString())


def _bad_request(error: InvalidInput) -> error_details_pb2.BadRequest:
    fields = error_details_pb2.BadRequest.FieldViolation
    message = error_details_pb2.BadRequest(
        field_violations=[fields(field=v.field, description=v.description) for v in error.violations]
    )
    return message if message.ByteSize() <= _MAX_DETAIL_BYTES else _shortened(error)


def _shortened(error: InvalidInput) -> error_details_pb2.BadRequest:
    """Return violations without repeated descriptions; the last entry names the rows that do not fit."""
    fields = error_details_pb2.BadRequest.FieldViolation
    message = error_details_pb2.BadRequest()
    room = _MAX_DETAIL_BYTES - _RANGES_BYTES
    previous = None
    for index, violation in enumerate(error.violations):
        text = "" if violation.description == previous else violation.description[:200]
        previous = violation.description
        item = fields(field=violation.field, description=text)
        room -= item.ByteSize() + 3
        if room < 0:
            rest = [v.field for v in error.violations[index:]]
            message.field_violations.add(field=rest[0].partition("[")[0], description=_ranges(rest))
            break
        message.field_violations.append(item)
    return message


def _ranges(field_paths: list[str]) -> str:
    """Return the rows of these fields as ranges: `and rows 100-220, 223`."""
    rows = [int(match[1]) for path in field_paths if (match := re.search(r"\[(\d+)\]", path))]
    ranges: list[list[int]] = []
    for row in rows:
        if ranges and row == ranges[-1][1] + 1:
            ranges[-1][1] = row
        else:
            ranges.append([row, row])
    text = "and rows " + ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)
    return text if len(text) < _RANGES_BYTES - 100 else text[: _RANGES_BYTES - 100].rpartition(",")[0] + ", …"
