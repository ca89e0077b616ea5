"""The path of every call, on any transport: readiness, time limit, status, metrics, log and trace."""

import logging
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias, TypeVar

from convvae_service.batching.pending_bytes import PendingBytes
from convvae_service.calls.deadlines import DEADLINE_SLACK_S
from convvae_service.calls.request_id import request_id_of
from convvae_service.calls.running_call import CallerLeft, RunningCall
from convvae_service.calls.state import State
from convvae_service.calls.status import Refusal, refusal_of
from convvae_service.calls.time_limits import TimeLimits
from convvae_service.errors import DeadlineExceeded, NotReady, Overloaded, ServiceError
from convvae_service.observability.access_log import AccessLog
from convvae_service.observability.call import Call
from convvae_service.observability.logs import facts
from convvae_service.observability.metrics import Metrics

if TYPE_CHECKING:
    from convvae_service.observability.tracing import Tracing

__all__ = ["CallRunner", "Metadata"]

Request = TypeVar("Request")
Reply = TypeVar("Reply")
Metadata: TypeAlias = Sequence[tuple[str, str | bytes]]

# A request is there as bytes and as a message; a reply as bytes and, until it is sent, once more in gRPC.
_COPIES = 2

_log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class CallRunner:
    """Runs the calls of a server, whichever front they come from. Safe to use from any thread.

    Args:
        metrics: Metrics that count the calls.
        max_call_s: Maximum seconds for one call.
        pending: The account of the bytes that calls hold.
        max_request_bytes: Maximum bytes of a request. A longer one never passes, so its caller is not told to
            come again, however full the account is.
        decoding_bytes: Returns the bytes that files hold while they are decoded, beside the account.
        access_log: The log of the calls.
        tracing: Makes the spans of the calls; None makes none.
        state: State of the server: it decides whether calls are taken.
    """

    metrics: Metrics
    max_call_s: float
    pending: PendingBytes = field(default_factory=partial(PendingBytes, sys.maxsize))
    max_request_bytes: int = sys.maxsize
    decoding_bytes: Callable[[], int] = int
    access_log: AccessLog = field(default_factory=partial(AccessLog, 1.0))
    tracing: "Tracing | None" = None
    state: State = State.STARTING
    last_arrival_s: float = 0.0
    _calls: set[Call] = field(default_factory=set, init=False)
    _limits: TimeLimits = field(default_factory=TimeLimits, init=False)

    @property
    def in_flight(self) -> int:
        """Number of calls that run now."""
        return len(self._calls)

    @property
    def calls(self) -> frozenset[Call]:
        """The calls that run now."""
        return frozenset(self._calls)

    def start(self) -> None:
        """Start the thread that watches the time limits. Without this, the first call starts it.

        Raises:
            RuntimeError: The system allows no more threads.
        """
        self._limits.start()

    def begin(self, method: str, metadata: Metadata) -> Call:
        """Return a new call with the caller's request id and trace, if the metadata have them."""
        call = Call(method, request_id_of(metadata))
        if self.tracing is not None:
            self.tracing.begin(call, metadata)
        return call

    def prepare(
        self,
        call: Call,
        handle: Callable[[Request, Call], Coroutine[Any, Any, Reply]],
        request: Request,
        reply: Callable[[Reply | Refusal], None],
        *,
        request_bytes: int = 0,
        time_left_s: float | None = None,
    ) -> RunningCall:
        """Return a call that is ready to start.

        Metrics and log have the call before `reply` is called, so a caller never sees an answer that is not
        counted. From here on `call.held` counts what the call holds. After its end that is the reply, if it
        is bytes: the front calls `call.held.release` when it is sent.

        Args:
            call: The call, from `begin`.
            handle: Answers the request.
            request: The message of the caller.
            reply: Called once, from any thread, with the answer: the reply, or the refusal that an error
                stands for. It is not called if the call is abandoned first.
            request_bytes: Bytes of the request as it arrived.
            time_left_s: Seconds until the caller's deadline, None without one. The front abandons the call at
                that time; here it only tells an expired call from a cancelled one.
        """
        self.count_arrival()
        started_s = self.last_arrival_s
        deadline_s = None if time_left_s is None else started_s + time_left_s
        coroutine = self._begin(call, handle, request, request_bytes)
        # The coroutine has it, unless the call is refused.
        del request
        running = RunningCall(coroutine, partial(self._end, call, reply, started_s, deadline_s))
        call.limit = partial(self._limits.add, running)
        call.limit(self.max_call_s, self._too_slow)
        self._calls.add(call)
        return running

    def refuse(self, call: Call, error: ServiceError) -> Refusal:
        """Count and log a call that fails before it can run, and return its refusal."""
        self.count_arrival()
        self._calls.add(call)
        refusal = refusal_of(error)
        self._close(call, refusal.code, self.last_arrival_s)
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
        self.metrics.count_expired(method)

    def _begin(
        self,
        call: Call,
        handle: Callable[[Request, Call], Coroutine[Any, Any, Reply]],
        request: Request,
        request_bytes: int,
    ) -> Coroutine[Any, Any, Reply]:
        if not self.state.takes_calls:
            return _raise(self.not_ready())
        call.held = self.pending.hold()
        try:
            call.held.add(_COPIES * request_bytes)
        except Overloaded as error:
            # The handler refuses a request that is too long, at its first step.
            if request_bytes <= self.max_request_bytes:
                return _raise(error.with_traceback(None))
        return handle(request, call)

    def _too_slow(self) -> DeadlineExceeded:
        return DeadlineExceeded(f"the call took longer than the server's limit of {self.max_call_s:g} s")

    def _end(
        self,
        call: Call,
        reply: Callable[[Any], None],
        started_s: float,
        deadline_s: float | None,
        outcome: Any,
    ) -> None:
        if isinstance(outcome, CallerLeft):
            expired = deadline_s is not None and time.monotonic() >= deadline_s - DEADLINE_SLACK_S
            call.held.keep(0)
            self._close(call, "DEADLINE_EXCEEDED" if expired else "CANCELLED", started_s)
            return
        code = "OK"
        if isinstance(outcome, BaseException):
            outcome = self._refusal(call, outcome)
            code = outcome.code
        call.held.keep(_COPIES * len(outcome) if isinstance(outcome, bytes) else 0)
        self._close(call, code, started_s)
        reply(outcome)

    def _refusal(self, call: Call, error: BaseException) -> Refusal:
        if isinstance(error, ServiceError):
            return refusal_of(error)
        _log.error(
            "internal error", extra=facts(request_id=call.request_id, method=call.method), exc_info=error
        )
        return Refusal("INTERNAL", f"internal error, id {call.request_id}")

    def _close(self, call: Call, code: str, started_s: float) -> None:
        """Release what a call holds, and record it. This never raises: the answer comes after it."""
        self._calls.discard(call)
        try:
            for release in call.on_end:
                release()
            seconds = time.monotonic() - started_s
            self.metrics.count_call(call.method, code, seconds, call.rows)
            self.access_log.write(call, code, seconds)
            if self.tracing is not None:
                self.tracing.end(call, code)
        except Exception:  # noqa: BLE001 - the caller waits for the answer all the same
            _log.exception("internal error: the end of a call is not recorded in full")


async def _raise(error: ServiceError) -> NoReturn:
    raise error
