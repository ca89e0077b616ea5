"""The call as it is known to logs, metrics and traces."""

import contextlib
from contextvars import ContextVar
from dataclasses import dataclass, field

__all__ = ["Call", "current_call"]


@dataclass(slots=True)
class Call:
    """A call on its way; handlers note what the log and the metrics should know."""

    method: str
    request_id: str
    rows: int = 0
    model: str = ""
    version: int = 0
    # What is given back when the call has ended, such as the model version that it runs on.
    held: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)


# The current call, for code that cannot take it as an argument (tracing).
current_call: ContextVar[Call | None] = ContextVar("current_call", default=None)
