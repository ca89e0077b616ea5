"""What can go wrong, in one tree.

    ConvvaeError
    ├── InvalidInput          INVALID_ARGUMENT     arguments or rows refused, here or there; also a ValueError
    ├── NotFound              NOT_FOUND            no such model or version
    ├── NotPossible           FAILED_PRECONDITION  capability missing, or version not loaded
    │   └── VersionGone                            replaced while it answered the pieces of a call
    ├── AccessDenied          UNAUTHENTICATED      token missing, wrong, or not enough (PERMISSION_DENIED)
    ├── MessageTooLarge       RESOURCE_EXHAUSTED   without a retry delay: repeating cannot help
    ├── TryLater                                   nothing is wrong with the call
    │   ├── Overloaded        RESOURCE_EXHAUSTED   with a retry delay: the queue is full
    │   ├── Unavailable       UNAVAILABLE          no server, or it starts or stops (or CANCELLED)
    │   └── Aborted           ABORTED              the server gave the call up
    ├── DeadlineExceeded      DEADLINE_EXCEEDED    not answered within `timeout_s`; also a TimeoutError
    ├── Cancelled             CANCELLED            by closing the client
    ├── Unimplemented         UNIMPLEMENTED        the server is older than the client
    ├── ServerFault           INTERNAL, others     a fault of the server: report its request id
    │   └── BadReply                               the reply contradicts the contract
    └── ClientClosed                               a call after `close()`

`convvae.transport.status` is the only place that makes them out of gRPC's errors.
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
    """One argument or row that was refused.

    Attributes:
        field: Name of the argument; a row by its index in the caller's whole list, as in `files[17]`.
        description: What is wrong with it.
    """

    field: str
    description: str

    def __str__(self) -> str:
        return f"{self.field}: {self.description}" if self.field else self.description


class ConvvaeError(Exception):
    """Root of all errors of this package.

    Attributes:
        message: What went wrong, in one line.
        code: Name of the gRPC status, such as `UNAVAILABLE`; empty when no server was asked.
        request_id: The server's id of the call, for its operator; empty when it gave none.
        retry_delay_s: After how many seconds the server asks to be called again; None when it did not say.
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
        about = [part for part in (self.code, self.request_id and f"request {self.request_id}") if part]
        return f"{self.message} ({', '.join(about)})" if about else self.message


class InvalidInput(ConvvaeError, ValueError):
    """The arguments were refused, by the client before sending (`code` is empty) or by the server.

    Attributes:
        violations: Each argument or row that was refused, where known.
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
    """The version that was to answer all pieces of a call was replaced before the last. Call again."""


class AccessDenied(ConvvaeError):
    """The server wants a token, or another one."""


class MessageTooLarge(ConvvaeError):
    """A message was above the size that the server, or a proxy before it, accepts. Send fewer rows."""


class TryLater(ConvvaeError):
    """The call may succeed when it is repeated later; all retries that were allowed have been made."""


class Overloaded(TryLater):
    """The server's queue is full."""


class Unavailable(TryLater):
    """No server answers at the target, or it is starting or stopping."""


class Aborted(TryLater):
    """The server gave the call up."""


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
