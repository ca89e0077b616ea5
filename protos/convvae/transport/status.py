"""The translation of gRPC's errors to this package's. It happens nowhere else."""

import re
from typing import Any, Protocol

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from convvae import errors
from convvae.errors import ConvvaeError, InvalidInput, Violation
from convvae.transport.connection_faults import find_connection_fault

__all__ = ["CLASSES", "RpcFailure", "from_rpc_error", "rebase"]

# RESOURCE_EXHAUSTED means a message that is too large; with `RetryInfo` it is `Overloaded`.
CLASSES: dict[grpc.StatusCode, type[ConvvaeError]] = {
    grpc.StatusCode.OK: errors.BadReply,
    # A server that stops cancels the calls that it has not started. The clients report their own
    # cancellations as `Cancelled`.
    grpc.StatusCode.CANCELLED: errors.Unavailable,
    grpc.StatusCode.UNKNOWN: errors.ServerFault,
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidInput,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.ALREADY_EXISTS: errors.ServerFault,
    grpc.StatusCode.PERMISSION_DENIED: errors.AccessDenied,
    grpc.StatusCode.UNAUTHENTICATED: errors.AccessDenied,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.MessageTooLarge,
    grpc.StatusCode.FAILED_PRECONDITION: errors.NotPossible,
    grpc.StatusCode.ABORTED: errors.Aborted,
    grpc.StatusCode.UNIMPLEMENTED: errors.Unimplemented,
    grpc.StatusCode.INTERNAL: errors.ServerFault,
    grpc.StatusCode.UNAVAILABLE: errors.Unavailable,
    grpc.StatusCode.DATA_LOSS: errors.ServerFault,
    grpc.StatusCode.OUT_OF_RANGE: errors.InvalidInput,
}

ADVICE: dict[type[ConvvaeError], str] = {
    errors.MessageTooLarge: "send fewer rows, or raise the limit of the server or the proxy",
    errors.DeadlineExceeded: "raise timeout_s, or send fewer rows",
    errors.AccessDenied: "check token=",
}

_DETAILS_KEY = "grpc-status-details-bin"
_REQUEST_ID_KEY = "x-request-id"
_MAX_RETRY_DELAY_S = 3600.0
_MAX_VIOLATIONS = 10_000
_RANGES = re.compile(r"and rows (\d{1,10}(?:-\d{1,10})?(?:, \d{1,10}(?:-\d{1,10})?)*)(?:, …)?")
_INDEXED = re.compile(r"\b(files|pixels|latents|images)((?:\.\w+)?)\[(\d{1,10})\]")


class RpcFailure(Protocol):
    """The methods that gRPC's synchronous and asynchronous errors share."""

    def code(self) -> grpc.StatusCode:
        """Return the status."""

    def details(self) -> str | None:
        """Return the server's message."""

    def trailing_metadata(self) -> Any:
        """Return the server's trailing metadata: pairs of key and value, or None."""


def from_rpc_error(error: RpcFailure, target: str = "") -> ConvvaeError:
    """Translate an error of gRPC. Details that cannot be parsed are omitted.

    Args:
        error: The error of a request.
        target: The target of the request. The message names it if no server may be there.
    """
    code = error.code()
    metadata = {key.lower(): value for key, value in error.trailing_metadata() or ()}
    violations, retry_delay_s = _details(metadata.get(_DETAILS_KEY))
    request_id = metadata.get(_REQUEST_ID_KEY, "")
    if isinstance(request_id, bytes):
        request_id = request_id.decode("utf-8", "replace")
    kind = CLASSES.get(code, errors.ServerFault)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and retry_delay_s is not None:
        kind = errors.Overloaded
    details = " ".join((error.details() or "").split())
    fault = find_connection_fault(
        code, details, target, answered=_DETAILS_KEY in metadata or request_id != ""
    )
    if fault is not None:
        kind, details = fault.kind, fault.reason
    if code is grpc.StatusCode.DEADLINE_EXCEEDED and "Deadline Exceeded" in details:
        # The words of gRPC, which ends the request here.
        details = f"{target}: no answer in time" if target else "no answer in time"
    message = details or kind.__doc__ or code.name
    if target and (fault is not None or kind is errors.Unavailable):
        message = f"{target}: {message}"
    if advice := ADVICE.get(kind):
        message = f"{message.rstrip('.')}; {advice}"
    if issubclass(kind, InvalidInput):
        return kind(
            message,
            violations=violations,
            code=code.name,
            request_id=request_id,
            retry_delay_s=retry_delay_s,
        )
    return kind(message, code=code.name, request_id=request_id, retry_delay_s=retry_delay_s)


def rebase(error: ConvvaeError, offset: int) -> ConvvaeError:
    """Return `error` with row indices that count from the caller's first row, not from the chunk's."""
    if offset == 0 or not isinstance(error, InvalidInput):
        return error

    def shift(text: str) -> str:
        return _INDEXED.sub(lambda found: f"{found[1]}{found[2]}[{int(found[3]) + offset}]", text)

    return type(error)(
        shift(error.message),
        violations=[Violation(shift(v.field), shift(v.description)) for v in error.violations],
        code=error.code,
        request_id=error.request_id,
        retry_delay_s=error.retry_delay_s,
    )


def _violations(bad_request: error_details_pb2.BadRequest) -> list[Violation]:
    """Return the full list of violations.

    The server leaves a repeated description empty, and may end the list with ranges of rows.
    """
    found: list[Violation] = []
    for item in bad_request.field_violations:
        previous = found[-1].description if found else ""
        if ranges := _RANGES.fullmatch(item.description):
            for part in ranges[1].split(","):
                first, _, last = part.strip().partition("-")
                rows = range(int(first), int(last or first) + 1)[: max(0, _MAX_VIOLATIONS - len(found))]
                found += [Violation(f"{item.field}[{row}]", previous) for row in rows]
        else:
            found.append(Violation(item.field, item.description or previous))
    return found


def _details(data: str | bytes | None) -> tuple[list[Violation], float | None]:
    """Parse `google.rpc.Status` bytes to the violations and the retry delay in seconds."""
    violations: list[Violation] = []
    retry_delay_s = None
    if not isinstance(data, bytes):
        return violations, retry_delay_s
    bad_request, retry_info = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    try:
        for detail in status_pb2.Status.FromString(data).details:
            if detail.Is(bad_request.DESCRIPTOR):
                detail.Unpack(bad_request)
                violations += _violations(bad_request)
            elif detail.Is(retry_info.DESCRIPTOR):
                detail.Unpack(retry_info)
                seconds = retry_info.retry_delay.seconds + retry_info.retry_delay.nanos / 1e9
                retry_delay_s = min(max(seconds, 0.0), _MAX_RETRY_DELAY_S)
    except DecodeError:
        return [], None
    return violations, retry_delay_s
