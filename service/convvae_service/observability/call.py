"""A call, as logs, metrics and traces see it."""

import contextlib
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from convvae_service.batching.report import SliceReport

__all__ = ["Call", "current_call"]


@dataclass(slots=True)
class Call:
    """A call in progress. Handlers note its rows, model and version for the log and the metrics.

    Attributes:
        method: Name of the method, such as `Encode`.
        request_id: The id that joins the caller's log with the server's.
        rows: Rows of the request.
        model: Name of the model that answers.
        version: Its version.
        held: Closed when the call has ended; it holds the model version open.
        peer: Address of the caller as gRPC writes it, such as `ipv4:127.0.0.1:57284`; empty if it is unknown.
        span: The span of the call, if it is traced.
        observe: Returns an observer of the runs with rows of this call, for its trace; None without one.
    """

    method: str
    request_id: str
    rows: int = 0
    model: str = ""
    version: int = 0
    held: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    peer: str = ""
    span: Any = None
    observe: Callable[[], Callable[[SliceReport], None] | None] = lambda: None


# The current call, for code that cannot take it as an argument (tracing).
current_call: ContextVar[Call | None] = ContextVar("current_call", default=None)
