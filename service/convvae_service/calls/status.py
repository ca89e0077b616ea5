"""The service's errors as gRPC statuses with `google.rpc` details."""

import re

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from convvae_service.errors import InvalidInput, Overloaded, ServiceError

__all__ = ["DETAILS_KEY", "DOMAIN", "status_code", "status_details"]

DETAILS_KEY = "grpc-status-details-bin"
DOMAIN = "convvae"
# Details travel in HTTP/2 headers, in base64. gRPC's clients may refuse headers above 8 KiB in all.
_MAX_DETAIL_BYTES = 4500
# Of these, kept for the ranges that close a list too long to spell out.
_RANGES_BYTES = 1500


def status_code(error: ServiceError) -> grpc.StatusCode:
    """Return the gRPC status of an error."""
    return grpc.StatusCode[error.status]


def status_details(error: ServiceError) -> bytes:
    """Return the serialised `google.rpc.Status` of an error, for the trailing metadata.

    `ErrorInfo` with the reason is always there, and `RetryInfo` has the delay of `Overloaded`. `BadRequest`
    lists the violations of `InvalidInput`; where there are many, a description equal to the one before is
    left empty, and what still does not fit is named by ranges of rows in a last entry.
    """
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)]
    if isinstance(error, Overloaded):
        delay = Duration()
        delay.FromNanoseconds(round(error.retry_delay_s * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    if isinstance(error, InvalidInput):
        details.append(_bad_request(error))
    code: int = status_code(error).value[0]
    status = status_pb2.Status(code=code, message=str(error))
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
    if message.ByteSize() <= _MAX_DETAIL_BYTES:
        return message
    message.Clear()
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
    """Return what is left as ranges of rows: `and rows 100-220, 223`."""
    rows = [int(match[1]) for path in field_paths if (match := re.search(r"\[(\d+)\]", path))]
    ranges: list[list[int]] = []
    for row in rows:
        if ranges and row == ranges[-1][1] + 1:
            ranges[-1][1] = row
        else:
            ranges.append([row, row])
    text = "and rows " + ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)
    return text if len(text) < _RANGES_BYTES - 100 else text[: _RANGES_BYTES - 100].rpartition(",")[0] + ", …"
