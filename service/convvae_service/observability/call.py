"""A call, as logs, metrics and traces see it."""

import contextlib
from contextvars import ContextVar
from dataclasses import dataclass, field

__all__ = ["Call", "current_call"]


@dataclass(slots=True)
class Call:
    """A call in progress. Handlers note its rows, model and version for the log and the metrics."""

    method: str
    request_id: str
    rows: int = 0
    model: str = ""
    version: int = 0
    # Closed when the call has ended; it holds the model version open.
    held: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)


# The current call, for code that cannot take it as an argument (tracing).
current_call: ContextVar[Call | None] = ContextVar("current_call", default=None)
