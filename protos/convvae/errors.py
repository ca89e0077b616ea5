"""The errors of this package, in one tree.

    ConvvaeError
    ├── InvalidInput          INVALID_ARGUMENT     client or server refused the arguments; also a ValueError
    ├── NotFound              NOT_FOUND            no such model or version
    ├── NotPossible           FAILED_PRECONDITION  capability missing, or version not loaded
    │   └── VersionGone                            the version was replaced during the call
    ├── AccessDenied          UNAUTHENTICATED      token missing or wrong; also PERMISSION_DENIED
    ├── MessageTooLarge       RESOURCE_EXHAUSTED   without a retry delay: a retry cannot help
    ├── TryLater                                   the call is valid and may succeed later
    │   ├── Overloaded        RESOURCE_EXHAUSTED   with a retry delay: the queue is full
    │   ├── Unavailable       UNAVAILABLE          no server, or it starts or stops; also CANCELLED by it
    │   └── Aborted           ABORTED              the server aborted the call
    ├── DeadlineExceeded      DEADLINE_EXCEEDED    not answered within `timeout_s`; also a TimeoutError
    ├── Cancelled             CANCELLED            the client was closed during the call
    ├── Unimplemented         UNIMPLEMENTED        the server is older than the client
    ├── ServerFault           INTERNAL, others     a fault of the server: report its request id
    │   └── BadReply                               the reply contradicts the contract
    ├── ClientClosed                               a call after `close()`
    └── ForkedDuringUse                           the process was forked while a client was open

Only `convvae.transport.status` translates gRPC's errors to these.
"""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "Aborted",
    "AccessDenied",
    "BadReply",
    "Cancelled",
    "ClientClosed",
    "ConvvaeError",
    "DeadlineExceeded",
    "ForkedDuringUse",
    "InvalidInput",
    "MessageTooLarge",
    "NotFound",
    "NotPossible",
    "Overloaded",
    "ServerFault",
    "TryLater",
    "Unavailable",
    "Unimplemented",
    "VersionGone",
    "Violation",
]


@dataclass(frozen=True, slots=True)
class Violation:
    """One refused argument or row.

    Attributes:
        field: Name of the argument. A row has its index in the caller's whole list, such as `files[17]`.
        description: The reason.
    """

    field: str
    description: str

    def __str__(self) -> str:
        return f"{self.field}: {self.description}" if self.field else self.description


class ConvvaeError(Exception):
    """The base class of all errors of this package.

    Attributes:
        message: The error in one line.
        code: Name of the gRPC status, such as `UNAVAILABLE`; empty if no request was sent.
        request_id: The server's id of the call, for its operator; empty if the server gave none.
        retry_delay_s: The server's retry delay in seconds, or None.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        request_id: str = "",
        retry_delay_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.request_id = request_id
        self.retry_delay_s = retry_delay_s

    def __str__(self) -> str:
        details = [part for part in (self.code, self.request_id and f"request {self.request_id}") if part]
        return f"{self.message} ({', '.join(details)})" if details else self.message


class InvalidInput(ConvvaeError, ValueError):
    """The client (`code` is empty) or the server refused the arguments.

    Attributes:
        violations: The refused arguments or rows, if they are known.
    """

    def __init__(
        self,
        message: str,
        *,
        violations: Sequence[Violation] = (),
        code: str = "",
        request_id: str = "",
        retry_delay_s: float | None = None,
    ) -> None:
        super().__init__(message, code=code, request_id=request_id, retry_delay_s=retry_delay_s)
        self.violations = tuple(violations)


class NotFound(ConvvaeError):
    """The server has no such model or version."""


class NotPossible(ConvvaeError):
    """The model lacks the capability, or the version is published but not loaded."""


class VersionGone(NotPossible):
    """The version was replaced before it had answered all requests of the call. Call again."""


class AccessDenied(ConvvaeError):
    """The server requires a token, or another token."""


class MessageTooLarge(ConvvaeError):
    """A message is larger than the server, or a proxy in between, accepts. Send fewer rows."""


class TryLater(ConvvaeError):
    """The call may succeed later. All allowed retries have failed."""


class Overloaded(TryLater):
    """The server's queue is full."""


class Unavailable(TryLater):
    """No server answers at the target, or it is starting or stopping."""


class Aborted(TryLater):
    """The server aborted the call."""


class DeadlineExceeded(ConvvaeError, TimeoutError):
    """The call was not answered in time."""


class Cancelled(ConvvaeError):
    """The client was closed during the call."""


class Unimplemented(ConvvaeError):
    """The server does not know the method."""


class ServerFault(ConvvaeError):
    """Something failed on the server; its log has the details under `request_id`."""


class BadReply(ServerFault):
    """The server's reply contradicts the contract, for example in its number of rows."""


class ClientClosed(ConvvaeError):
    """The client was used after `close()`."""


class ForkedDuringUse(ConvvaeError):
    """The process was forked while its parent had an open client, so gRPC cannot work in it."""
