"""The errors of the service, and the gRPC status that callers see for each.

    ServiceError
    ├── InvalidInput         INVALID_ARGUMENT     the request is wrong; `violations` lists each bad field
    ├── Unauthenticated      UNAUTHENTICATED      no token, or a wrong one
    ├── CompressionOff       UNIMPLEMENTED        the request is compressed, and the server takes none
    ├── NotFound             NOT_FOUND            no such model or version
    ├── CapabilityMissing    FAILED_PRECONDITION  the model cannot do this
    ├── VersionNotLoaded     FAILED_PRECONDITION  the version is published, but not loaded on this server
    ├── Overloaded           RESOURCE_EXHAUSTED   the queue is full; retry after `retry_delay_s`
    ├── NotReady             UNAVAILABLE          the server is starting or stopping
    └── DeadlineExceeded     DEADLINE_EXCEEDED    the call took too long

    StartupError             no caller sees it: the process ends with a message and exit code 2

Any other exception is an error in the service itself. The caller sees INTERNAL with an id; the log has the
traceback under this id.
"""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "CapabilityMissing",
    "CompressionOff",
    "DeadlineExceeded",
    "InvalidInput",
    "NotFound",
    "NotReady",
    "Overloaded",
    "ServiceError",
    "StartupError",
    "Unauthenticated",
    "VersionNotLoaded",
    "Violation",
]


# A message is sent twice in headers. If the headers are too long, callers see another status.
_MAX_MESSAGE_LENGTH = 500


class ServiceError(Exception):
    """A call that cannot be answered. The message tells the caller what to change."""

    # Name of the gRPC status, as in `grpc.StatusCode`.
    status: str
    # Machine-readable reason, for `google.rpc.ErrorInfo`.
    reason: str

    def __init__(self, message: str) -> None:
        super().__init__(
            message if len(message) <= _MAX_MESSAGE_LENGTH else message[:_MAX_MESSAGE_LENGTH] + "…"
        )


@dataclass(frozen=True, slots=True)
class Violation:
    """A bad field of a request: its path, and what is wrong with it."""

    field: str
    description: str


class InvalidInput(ServiceError):
    """The request is wrong. The same request will fail again."""

    status = "INVALID_ARGUMENT"
    reason = "INVALID_INPUT"

    def __init__(self, violations: Sequence[Violation]) -> None:
        self.violations = tuple(violations)
        first = self.violations[0]
        more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
        super().__init__(f"{first.field}: {first.description}{more}")


class Unauthenticated(ServiceError):
    """The call has no valid token."""

    status = "UNAUTHENTICATED"
    reason = "UNAUTHENTICATED"


class CompressionOff(ServiceError):
    """The request is compressed, and the server takes no compressed requests."""

    status = "UNIMPLEMENTED"
    reason = "COMPRESSION_OFF"


class NotFound(ServiceError):
    """There is no such model or version."""

    status = "NOT_FOUND"
    reason = "NOT_FOUND"


class CapabilityMissing(ServiceError):
    """The model exists, but it lacks the capability that the call needs."""

    status = "FAILED_PRECONDITION"
    reason = "CAPABILITY_MISSING"


class VersionNotLoaded(ServiceError):
    """The version is published, but not loaded on this server."""

    status = "FAILED_PRECONDITION"
    reason = "VERSION_NOT_LOADED"


class Overloaded(ServiceError):
    """The queue is full. Retry after `retry_delay_s` seconds."""

    status = "RESOURCE_EXHAUSTED"
    reason = "QUEUE_FULL"

    def __init__(self, message: str, *, retry_delay_s: float) -> None:
        super().__init__(message)
        self.retry_delay_s = retry_delay_s


class NotReady(ServiceError):
    """The server is starting or stopping. Another server may answer."""

    status = "UNAVAILABLE"
    reason = "NOT_READY"


class DeadlineExceeded(ServiceError):
    """The call took longer than the caller's deadline or the server's limit."""

    status = "DEADLINE_EXCEEDED"
    reason = "DEADLINE_EXCEEDED"


class StartupError(Exception):
    """The server cannot start. The message tells the operator what to change."""
