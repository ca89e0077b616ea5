"""What can go wrong in the service, and what the caller sees of it.

    ServiceError
    ├── InvalidInput         INVALID_ARGUMENT     the request is wrong; `violations` lists every bad field
    ├── Unauthenticated      UNAUTHENTICATED      no token, or a wrong one
    ├── NotFound             NOT_FOUND            no such model or version
    ├── CapabilityMissing    FAILED_PRECONDITION  the model cannot do this
    ├── VersionNotLoaded     FAILED_PRECONDITION  published, but this server does not serve it
    ├── Overloaded           RESOURCE_EXHAUSTED   the queue is full; `retry_delay_s` says when to come back
    ├── NotReady             UNAVAILABLE          starting or stopping
    └── DeadlineExceeded     DEADLINE_EXCEEDED    the time is up

    StartupError             no caller: the process ends with a message and exit code 2

Any other exception is a fault of the service: the caller sees INTERNAL with an id, the log has the rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "CapabilityMissing",
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


# A message travels in a header, twice; a header that is too long would turn every status into another.
MAX_MESSAGE_LENGTH = 500


class ServiceError(Exception):
    """A call cannot be answered; the message tells the caller what to change."""

    # The name of the gRPC status; `calls.status` has the code. This module needs no gRPC.
    status: str
    # Machine-readable, as `google.rpc.ErrorInfo.reason`.
    reason: str

    def __init__(self, message: str) -> None:
        super().__init__(
            message if len(message) <= MAX_MESSAGE_LENGTH else message[:MAX_MESSAGE_LENGTH] + "…"
        )


@dataclass(frozen=True, slots=True)
class Violation:
    """One bad field of a request, by its path, and what is wrong with it."""

    field: str
    description: str


class InvalidInput(ServiceError):
    """The request itself is wrong; the same request will fail again."""

    status = "INVALID_ARGUMENT"
    reason = "INVALID_INPUT"

    def __init__(self, violations: Sequence[Violation]) -> None:
        self.violations = tuple(violations)
        first = self.violations[0]
        more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
        super().__init__(f"{first.field}: {first.description}{more}")


class Unauthenticated(ServiceError):
    """The call has no token, or not one of the server's."""

    status = "UNAUTHENTICATED"
    reason = "UNAUTHENTICATED"


class NotFound(ServiceError):
    """There is no such model or version."""

    status = "NOT_FOUND"
    reason = "NOT_FOUND"


class CapabilityMissing(ServiceError):
    """The model exists and cannot do what was asked."""

    status = "FAILED_PRECONDITION"
    reason = "CAPABILITY_MISSING"


class VersionNotLoaded(ServiceError):
    """The version is published, and this server does not have it loaded."""

    status = "FAILED_PRECONDITION"
    reason = "VERSION_NOT_LOADED"


class Overloaded(ServiceError):
    """The queue is full. Come back after `retry_delay_s`."""

    status = "RESOURCE_EXHAUSTED"
    reason = "QUEUE_FULL"

    def __init__(self, message: str, *, retry_delay_s: float) -> None:
        super().__init__(message)
        self.retry_delay_s = retry_delay_s


class NotReady(ServiceError):
    """The server is starting or stopping; another one may answer."""

    status = "UNAVAILABLE"
    reason = "NOT_READY"


class DeadlineExceeded(ServiceError):
    """The caller's deadline, or the server's limit on a call, has passed."""

    status = "DEADLINE_EXCEEDED"
    reason = "DEADLINE_EXCEEDED"


class StartupError(Exception):
    """The server cannot start; the message tells the operator what to change."""
