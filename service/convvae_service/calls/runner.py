"""The path of every call, on any transport: readiness, time limit, status, metrics and log."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from convvae_service.calls.state import State
from convvae_service.calls.status import Refusal, refusal_of
from convvae_service.errors import DeadlineExceeded, NotReady, ServiceError
from convvae_service.observability.call import Call, current_call
from convvae_service.observability.logs import facts, is_sampled
from convvae_service.observability.metrics import Metrics

__all__ = ["CallRunner"]

Request = TypeVar("Request")
Reply = TypeVar("Reply")

# The caller's clock expires first: its reset arrives before the deadline has passed on this side.
_DEADLINE_SLACK_S = 0.05

_log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class CallRunner:
    """Runs the calls of a server, whichever front they come from.

    Args:
        metrics: Metrics that count the calls.
        max_call_s: Maximum seconds for one call.
        access_log_sample: Share (0..1) of the calls with status OK that are logged; all others are logged.
        state: State of the server: it decides whether calls are taken.
    """

    metrics: Metrics
    max_call_s: float
    access_log_sample: float = 1.0
    state: State = State.STARTING
    in_flight: int = 0
    last_arrival_s: float = 0.0

    async def run(
        self,
        call: Call,
        handle: Callable[[Request, Call], Awaitable[Reply]],
        request: Request,
        *,
        time_left_s: Callable[[], float | None],
    ) -> Reply | Refusal:
        """Return the reply of `handle`, or the refusal that its error stands for.

        Metrics and log have the call before this returns, so a caller never sees an answer that is not
        counted.

        Args:
            call: The call, not begun yet.
            handle: Answers the request.
            request: The message of the caller.
            time_left_s: Returns the seconds until the caller's deadline, None without one.

        Raises:
            CancelledError: The caller left, or its deadline passed.
        """
        started_s = self._begin(call)
        try:
            if not self.state.takes_calls:
                raise self.not_ready()
            # The front cancels this coroutine at the caller's own deadline.
            async with asyncio.timeout(self.max_call_s):
                reply = await handle(request, call)
        except Exception as error:  # noqa: BLE001 - the log gets it, the caller must not
            refusal = self._refusal(call, error)
            self._end(call, refusal.code, started_s)
            return refusal
        except BaseException:
            # Always raise a cancellation again: gRPC would never free the memory of a call that hides it.
            left_s = time_left_s()
            expired = left_s is not None and left_s <= _DEADLINE_SLACK_S
            self._end(call, "DEADLINE_EXCEEDED" if expired else "CANCELLED", started_s)
            raise
        self._end(call, "OK", started_s)
        return reply

    def refuse(self, call: Call, error: ServiceError) -> Refusal:
        """Count and log a call that fails before it can run, and return its refusal."""
        started_s = self._begin(call)
        refusal = refusal_of(error)
        self._end(call, refusal.code, started_s)
        return refusal

    def not_ready(self) -> NotReady:
        """Return the error of calls that arrive while the server takes none."""
        return NotReady(f"the server is {self.state.value}: try again, or another server")

    def count_arrival(self) -> None:
        """Note that a call has arrived, whether or not it is answered."""
        self.last_arrival_s = time.monotonic()

    def count_expired(self, method: str) -> None:
        """Count a call that had expired on arrival. It is not logged: a storm of them would fill the log."""
        self.count_arrival()
        self.metrics.calls.labels(method, "DEADLINE_EXCEEDED").inc()

    async def wait_until_idle(self, quiet_s: float, *, at_most_s: float) -> None:
        """Return when no call has arrived for `quiet_s` seconds, or after `at_most_s` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(at_most_s):
                # Each arrival extends the wait.
                while (left_s := self.last_arrival_s + quiet_s - time.monotonic()) > 0:  # noqa: ASYNC110
                    await asyncio.sleep(left_s)

    def _begin(self, call: Call) -> float:
        current_call.set(call)
        self.count_arrival()
        self.in_flight += 1
        self.metrics.in_flight.set(self.in_flight)
        return self.last_arrival_s

    def _refusal(self, call: Call, error: Exception) -> Refusal:
        if isinstance(error, TimeoutError):
            error = DeadlineExceeded(f"the call took longer than the server's limit of {self.max_call_s:g} s")
        if isinstance(error, ServiceError):
            return refusal_of(error)
        _log.exception("internal error", extra=facts(request_id=call.request_id, method=call.method))
        return Refusal("INTERNAL", f"internal error, id {call.request_id}")

    def _end(self, call: Call, code: str, started_s: float) -> None:
        call.held.close()
        self.in_flight -= 1
        self.metrics.in_flight.set(self.in_flight)
        seconds = time.monotonic() - started_s
        self.metrics.calls.labels(call.method, code).inc()
        self.metrics.call_seconds.labels(call.method).observe(seconds)
        if code == "OK":
            self.metrics.rows.labels(call.method).inc(call.rows)
        if _log.isEnabledFor(logging.INFO) and (
            code != "OK" or is_sampled(call.request_id, self.access_log_sample)
        ):
            _log.info(
                "call",
                extra=facts(
                    method=call.method,
                    code=code,
                    model=call.model,
                    version=call.version,
                    rows=call.rows,
                    seconds=round(seconds, 6),
                    request_id=call.request_id,
                ),
            )
