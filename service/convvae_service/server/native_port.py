"""One address of the native front: calls arrive in bursts, and are answered from any thread."""

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from google.rpc import code_pb2
from pygrpc_native import EVENT_CALL, EVENT_CANCEL, NativeGrpcFront

from convvae_service.calls.deadlines import DEADLINE_SLACK_S, MIN_TIME_LEFT_S
from convvae_service.calls.request_id import REQUEST_ID_KEY
from convvae_service.calls.runner import CallRunner
from convvae_service.calls.running_call import RunningCall
from convvae_service.calls.service import Method, ProbeMethod
from convvae_service.calls.status import DETAILS_KEY, Refusal
from convvae_service.errors import ServiceError
from convvae_service.observability.call import Call
from convvae_service.observability.grpc_metrics import Distribution, MethodTotals, StatusTotals
from convvae_service.server.auth import Tokens

__all__ = ["NativePort", "SizeLimits"]

_Metadata: TypeAlias = Sequence[tuple[str, str | bytes]]

# Calls and cancellations that are read at once.
_MAX_BURST = 1024
# Bytes of metadata that a call has beside those that it shows here: HTTP/2's own keys and gRPC's.
_TRANSPORT_METADATA_BYTES = 500
_RESOURCE_EXHAUSTED = code_pb2.Code.Value("RESOURCE_EXHAUSTED")
_INTERNAL = code_pb2.Code.Value("INTERNAL")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SizeLimits:
    """Limits that gRPC holds on the other front: the largest message, and the largest metadata of a call."""

    max_message_bytes: int
    max_metadata_bytes: int

    def violation(self, request: bytes, metadata: _Metadata) -> str | None:
        """Return what is too large, None if nothing is."""
        if len(request) > self.max_message_bytes:
            return f"received a message of {len(request)} bytes: the maximum is {self.max_message_bytes}"
        size = _TRANSPORT_METADATA_BYTES + sum(len(key) + len(value) + 32 for key, value in metadata)
        if size > self.max_metadata_bytes:
            return f"received metadata of about {size} bytes: the maximum is {self.max_metadata_bytes}"
        return None


class NativePort:
    """Reads the calls of one listening address in a thread of its own.

    The thread takes all that has arrived, abandons the calls whose callers have left, and starts the others:
    it parses and admits them while batches run. A call is answered from the thread that has its result. A
    short call that arrives alone is computed and answered by this thread.

    Args:
        listener: The address, with its methods registered.
        methods: The methods by their numbers.
        runner: Runs the calls.
        limits: Largest message and metadata.
        tokens: The tokens that callers must have one of; None accepts everybody.
    """

    def __init__(
        self,
        listener: NativeGrpcFront,
        methods: Sequence[Method | ProbeMethod],
        runner: CallRunner,
        limits: SizeLimits,
        tokens: Tokens | None,
    ) -> None:
        self._listener = listener
        self._methods = methods
        self._runner = runner
        self._limits = limits
        self._tokens = tokens
        self._running: dict[int, RunningCall] = {}
        # For the watchdog: when the calls arrived that are being started, None while none are. If the thread
        # ends and the address is not closed, it is the time of that end.
        self.busy_since_s: float | None = None
        self._closed = False

    def start(self) -> None:
        """Begin to take calls."""
        self._listener.start()
        # A daemon thread does not keep the process alive.
        threading.Thread(target=self._read, name="calls", daemon=True).start()

    @property
    def open(self) -> int:
        """Number of calls that are not read yet, that run, or whose replies are not sent yet."""
        counts = self._listener.metrics() or {"methods": {}}
        return sum(
            method["started"] - sum(status["count"] for status in method["status"].values())
            for method in counts["methods"].values()
        )

    def totals(self) -> dict[str, MethodTotals]:
        """Return what the listener has counted, for gRPC's own metrics."""
        counts = self._listener.metrics() or {"methods": {}}
        return {
            path.removeprefix("/"): _totals(counts["methods"][path])
            for path in counts["methods"].keys() & {method.path for method in self._methods}
        }

    def close(self) -> None:
        """Abandon the calls that run, and close the address. Replies that are not sent yet are lost."""
        self._closed = True
        for call_id in list(self._running):
            self._abandon(call_id)
        self._listener.close()

    def _read(self) -> None:
        try:
            while (events := self._listener.recv_batch_details(_MAX_BURST)) is not None:
                self.busy_since_s = time.monotonic()
                try:
                    self._take_all(events)
                except Exception:  # noqa: BLE001 - the calls that come later must be read
                    _log.exception("internal error: calls that arrived together could not be started")
                # The next wait may be long, and these hold the bytes of requests.
                del events
                self.busy_since_s = None
        except Exception:  # noqa: BLE001 - nothing else would say it
            _log.exception("internal error: no more calls can be read")
        finally:
            self.busy_since_s = None if self._closed else time.monotonic()

    def _take_all(self, events: list[Any]) -> None:
        left = {event[1] for event in events if event[0] == EVENT_CANCEL}
        for call_id in left:
            self._abandon(call_id)
        alone = len(events) == 1
        events.reverse()
        while events:
            # Out of the list: each call frees its request as soon as it has read it.
            kind, call_id, number, request, _, details = events.pop()
            if kind == EVENT_CALL:
                try:
                    self._take(
                        call_id,
                        self._methods[number],
                        request,
                        details,
                        has_left=call_id in left,
                        alone=alone,
                    )
                except Exception:  # noqa: BLE001 - the other calls must be read
                    _log.exception("internal error: a call could not be started")
                    self._running.pop(call_id, None)
                    self._listener.fail(call_id, _INTERNAL, "internal error")

    def _take(
        self,
        call_id: int,
        method: Method | ProbeMethod,
        request: Any,
        details: Any,
        *,
        has_left: bool,
        alone: bool,
    ) -> None:
        metadata, peer, time_left_s = details
        if time_left_s is not None and time_left_s < (DEADLINE_SLACK_S if has_left else MIN_TIME_LEFT_S):
            # The listener answers DEADLINE_EXCEEDED.
            self._runner.count_expired(method.name)
            return
        if violation := self._limits.violation(request, metadata):
            self._listener.fail(call_id, _RESOURCE_EXHAUSTED, violation)
            return
        try:
            if self._tokens is not None:
                self._tokens.check(metadata)
            if isinstance(method, ProbeMethod):
                self._listener.respond(call_id, method.answer(request))
                return
        except ServiceError as error:
            call = self._runner.begin(method.name, metadata)
            call.peer = peer
            self._reply(call_id, call, self._runner.refuse(call, error))
            return
        call = self._runner.begin(method.name, metadata)
        call.peer, call.alone = peer, alone
        reply = partial(self._reply, call_id, call)
        running = self._runner.prepare(
            call, method.answer, request, reply, request_bytes=len(request), time_left_s=time_left_s
        )
        if has_left:
            running.abandon()
        else:
            self._running[call_id] = running
        running.start()

    def _reply(self, call_id: int, call: Call, answer: bytes | Refusal) -> None:
        self._running.pop(call_id, None)
        trailing: list[tuple[str, str | bytes]] = [(REQUEST_ID_KEY, call.request_id)]
        if not isinstance(answer, Refusal):
            self._listener.respond(call_id, answer, None, trailing)
            call.held.release()
            return
        if answer.details:
            trailing.append((DETAILS_KEY, answer.details))
        self._listener.fail(call_id, code_pb2.Code.Value(answer.code), answer.message, trailing)

    def _abandon(self, call_id: int) -> None:
        if running := self._running.pop(call_id, None):
            try:
                running.abandon()
            except Exception:  # noqa: BLE001 - the other calls must be read
                _log.exception("internal error: a call could not be abandoned")


def _totals(counts: Mapping[str, Any]) -> MethodTotals:
    """Return the counts of one method. pygrpc-native has the bounds of gRFC A66 too."""
    ended = {
        code_pb2.Code.Name(int(code)): StatusTotals(
            seconds=Distribution(found["buckets"], found["sum"]),
            sent=Distribution(found["sent"]["buckets"], found["sent"]["sum"]),
            received=Distribution(found["rcvd"]["buckets"], found["rcvd"]["sum"]),
        )
        for code, found in counts["status"].items()
    }
    return MethodTotals(counts["started"], ended)
