"""A call, as logs, metrics and traces see it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from convvae_service.batching.pending_bytes import UNCOUNTED, HeldBytes
from convvae_service.batching.report import SliceObserver
from convvae_service.errors import ServiceError

__all__ = ["Call", "no_limit", "no_observer"]


def no_limit(seconds: float, make_error: Callable[[], ServiceError]) -> None:
    """Set no time limit: the call does not run."""


def no_observer() -> None:
    """Return None: the call is not traced."""


@dataclass(slots=True, eq=False)
class Call:
    """A call in progress. Handlers note its rows, model and version for the log and the metrics.

    Attributes:
        method: Name of the method, such as `Encode`.
        request_id: The id that joins the caller's log with the server's.
        rows: Rows of the request.
        model: Name of the model that answers.
        version: Its version.
        on_end: Functions that are called when the call has ended, such as the release of a model version.
        peer: Address of the caller as gRPC writes it, such as `ipv4:127.0.0.1:57284`; empty if it is unknown.
        span: The span of the call, if it is traced.
        observe: Returns an observer of the runs with rows of this call, for its trace; None without one.
        alone: Whether the call arrived alone. The thread that reads calls may then compute it itself.
        held: The bytes that the call holds.
        limit: Gives the call a time limit of its own: after these seconds it ends with this error.
    """

    method: str
    request_id: str
    rows: int = 0
    model: str = ""
    version: int = 0
    on_end: list[Callable[[], None]] = field(default_factory=list)
    peer: str = ""
    span: Any = None
    observe: Callable[[], SliceObserver | None] = no_observer
    alone: bool = False
    held: HeldBytes = UNCOUNTED
    limit: Callable[[float, Callable[[], ServiceError]], None] = no_limit
