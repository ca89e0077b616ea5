"""The metering of the calls of grpcio's front, for gRPC's own metrics."""

import asyncio
import time
from types import TracebackType
from typing import Any

import grpc

from convvae_service.calls.deadlines import DEADLINE_SLACK_S
from convvae_service.observability.grpc_metrics import MethodTotals
from convvae_service.server.grpc_context import Context

__all__ = ["Metering", "metered"]


class Metering:
    """Counts one call for the length of a `with` block: its status is how the block ends.

    Attributes:
        sent: Bytes of the replies so far.
        received: Bytes of the requests so far.
    """

    __slots__ = ("_context", "_started_s", "_totals", "received", "sent")

    def __init__(self, totals: MethodTotals, context: Context) -> None:
        self._totals = totals
        self._context = context
        self.sent = self.received = 0

    def __enter__(self) -> "Metering":
        self._totals.started += 1
        self._started_s = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        seconds = time.monotonic() - self._started_s
        status = "OK" if kind is None else self._status_of(kind)
        self._totals.end(status, seconds, sent=self.sent, received=self.received)

    def _status_of(self, kind: type[BaseException]) -> str:
        if issubclass(kind, asyncio.CancelledError):
            left_s = self._context.time_remaining()
            return "CANCELLED" if left_s is None or left_s > DEADLINE_SLACK_S else "DEADLINE_EXCEEDED"
        # gRPC answers UNKNOWN for an error that is no status. Before there is one, the code is a number.
        code: object = self._context.code()
        return code.name if isinstance(code, grpc.StatusCode) else "UNKNOWN"


def metered(context: Context, metering: Metering) -> Context:
    """Return the context of a call whose replies are counted as they are written."""
    counting: Any = _MeteredContext(context, metering)
    return counting  # type: ignore[no-any-return]


class _MeteredContext:
    def __init__(self, context: Context, metering: Metering) -> None:
        self._context = context
        self._metering = metering

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def write(self, reply: Any) -> None:
        """Send a reply."""
        # Before: a caller that has it may leave at once.
        self._metering.sent += reply.ByteSize()
        await self._context.write(reply)
