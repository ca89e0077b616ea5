"""What every call goes through: readiness, a time budget, its status, metrics and a line in the log."""

import asyncio
import contextlib
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import grpc

from convvae_service.calls.status import DETAILS_KEY, status_code, status_details
from convvae_service.errors import DeadlineExceeded, NotReady, ServiceError
from convvae_service.observability.call import Call, current_call
from convvae_service.observability.logs import facts, is_sampled
from convvae_service.observability.metrics import Metrics

__all__ = ["REQUEST_ID_KEY", "CallRunner", "Context", "request_id_of"]

Request = TypeVar("Request")
Reply = TypeVar("Reply")
Context = grpc.aio.ServicerContext[Any, Any]

REQUEST_ID_KEY = "x-request-id"
# The caller's clock runs out first, and its reset arrives before the deadline is over here.
_DEADLINE_SLACK_S = 0.05
# Nobody can be answered in less.
_LEAST_LEFT_S = 0.001
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")

_log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class CallRunner:
    """Answers calls. `unavailable_reason` says why none is taken at present; empty while they are.

    Args:
        metrics: Where calls are counted.
        max_call_s: Most seconds for one call.
        access_log_sample: Share of the calls answered with OK that are logged, by their ids; all others are.
    """

    metrics: Metrics
    max_call_s: float
    access_log_sample: float = 1.0
    unavailable_reason: str = "the server is starting"
    in_flight: int = 0
    last_arrival_s: float = 0.0

    async def answer(
        self,
        method: str,
        handle: Callable[[Request, Call], Awaitable[Reply]],
        request: Request,
        context: Context,
    ) -> Reply:
        """Return what `handle` makes of `request`, or end the call with the status of its error.

        The id of the call, the caller's `x-request-id` or a new one, goes back in the trailing metadata.
        """
        return await self._account_for(
            method, lambda call: self._within_budget(handle, request, call), context
        )

    async def refuse(self, method: str, error: ServiceError, context: Context) -> None:
        """End a call with the status of `error`, counted and logged as `answer` would."""

        async def fail(call: Call) -> NoReturn:
            del call
            raise error

        await self._account_for(method, fail, context)

    def not_ready(self) -> NotReady:
        """Return the error of calls that are not taken at present."""
        return NotReady(f"{self.unavailable_reason}: try again, or another server")

    def count_arrival(self) -> None:
        """Note that a call has come, whatever becomes of it."""
        self.last_arrival_s = time.monotonic()

    def drop_if_expired(self, method: str, context: Context) -> None:
        """Count a call whose deadline has passed before it is begun, without a line in the log, and end it.

        Raises:
            CancelledError: It has passed. No status is sent: gRPC sends its own, and a storm costs no more.
        """
        left_s = context.time_remaining()
        if left_s is not None and left_s < _LEAST_LEFT_S:
            self.count_arrival()
            self.metrics.calls.labels(method, grpc.StatusCode.DEADLINE_EXCEEDED.name).inc()
            raise asyncio.CancelledError

    async def _account_for(
        self, method: str, handle: Callable[[Call], Awaitable[Reply]], context: Context
    ) -> Reply:
        call = Call(method, request_id_of(context))
        current_call.set(call)
        context.set_trailing_metadata(((REQUEST_ID_KEY, call.request_id),))
        self.count_arrival()
        started_s = self.last_arrival_s
        code = grpc.StatusCode.UNKNOWN
        refusal: tuple[str, tuple[tuple[str, str | bytes], ...]] | None = None
        self.in_flight += 1
        self.metrics.in_flight.set(self.in_flight)
        try:
            reply = await handle(call)
            code = grpc.StatusCode.OK
        except ServiceError as error:
            code = status_code(error)
            trailing = ((REQUEST_ID_KEY, call.request_id), (DETAILS_KEY, status_details(error)))
            refusal = (str(error), trailing)
        except asyncio.CancelledError:
            # The caller left or its deadline passed. Swallowing this would leak the call's memory in gRPC.
            left_s = context.time_remaining()
            expired = left_s is not None and left_s <= _DEADLINE_SLACK_S
            code = grpc.StatusCode.DEADLINE_EXCEEDED if expired else grpc.StatusCode.CANCELLED
            raise
        except Exception:  # noqa: BLE001 - the caller must not see what went wrong in here, the log must
            code = grpc.StatusCode.INTERNAL
            _log.exception("internal error", extra=facts(request_id=call.request_id, method=method))
            refusal = (f"internal error, id {call.request_id}", ((REQUEST_ID_KEY, call.request_id),))
        finally:
            call.held.close()
            self.in_flight -= 1
            self.metrics.in_flight.set(self.in_flight)
            self._record(call, code, time.monotonic() - started_s)
        # Only now: a caller who has its answer finds the call counted.
        if refusal is not None:
            await context.abort(code, *refusal)
        return reply

    async def wait_until_idle(self, quiet_s: float, *, at_most_s: float) -> None:
        """Return when no call has arrived for `quiet_s`, or after `at_most_s`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(at_most_s):
                # Each arrival puts the end off.
                while (left_s := self.last_arrival_s + quiet_s - time.monotonic()) > 0:  # noqa: ASYNC110
                    await asyncio.sleep(left_s)

    async def _within_budget(
        self, handle: Callable[[Request, Call], Awaitable[Reply]], request: Request, call: Call
    ) -> Reply:
        if self.unavailable_reason:
            raise self.not_ready()
        try:
            # gRPC itself cancels the handler at the caller's deadline.
            async with asyncio.timeout(self.max_call_s):
                return await handle(request, call)
        except TimeoutError:
            raise DeadlineExceeded(f"the call took longer than the server's {self.max_call_s:g} s") from None

    def _record(self, call: Call, code: grpc.StatusCode, seconds: float) -> None:
        self.metrics.calls.labels(call.method, code.name).inc()
        self.metrics.call_seconds.labels(call.method).observe(seconds)
        if code is grpc.StatusCode.OK:
            self.metrics.rows.labels(call.method).inc(call.rows)
        if _log.isEnabledFor(logging.INFO) and (
            code is not grpc.StatusCode.OK or is_sampled(call.request_id, self.access_log_sample)
        ):
            _log.info(
                "call",
                extra=facts(
                    method=call.method,
                    code=code.name,
                    model=call.model,
                    version=call.version,
                    rows=call.rows,
                    seconds=round(seconds, 6),
                    request_id=call.request_id,
                ),
            )


def request_id_of(context: Context) -> str:
    """Return the id of a call: the caller's `x-request-id` where it is usable, or a new one."""
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID_KEY and isinstance(value, str) and _REQUEST_ID.fullmatch(value):
            return value
    return secrets.token_hex(8)
