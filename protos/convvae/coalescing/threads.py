"""Joint calls of the threads that share a `Client`. No thread is started: one of the callers sends."""

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, TypeAlias

from convvae.calls.exchanges import ModelCache
from convvae.coalescing.gathering import PATIENCE, Gathering, Member
from convvae.coalescing.joint_operation import (
    Joinable,
    Kind,
    SmallCall,
    Verdict,
    detached,
    divide,
    join,
    judge,
)
from convvae.errors import Cancelled, ClientClosed, ConvvaeError, DeadlineExceeded
from convvae.model_name import ModelName
from convvae.results import Answer
from convvae.transport.scheduler import TimeLimit

__all__ = ["ThreadCoalescer"]

Send: TypeAlias = Callable[[Joinable, ModelName, TimeLimit], Answer]
_Key: TypeAlias = tuple[Kind, ModelName]
_Outcome: TypeAlias = Answer | ConvvaeError | Verdict


class _Turn(Enum):
    LEAD = auto()


@dataclass(eq=False, slots=True)
class _Caller(Member):
    """A thread in a call.

    Attributes:
        inbox: Receives the turn to lead, and the outcome.
        group: The callers whose rows this thread sends, from the time it takes them to their outcome.
        gone: Whether it has left, with or without an outcome.
    """

    inbox: "queue.SimpleQueue[_Turn | _Outcome]" = field(default_factory=queue.SimpleQueue)
    group: "list[_Caller]" = field(default_factory=list)
    gone: bool = False


class ThreadCoalescer:
    """Joins the small calls of threads.

    The caller that gets a slot, the leader, sends the rows of all who wait, and gives each its answer. The
    slot then passes to the last that is woken, so that the others may call again before the next joint call.

    Args:
        send: Sends one operation and blocks until its answer is there.
        models: The descriptions of models, which have the server's limits.
    """

    def __init__(self, send: Send, models: ModelCache) -> None:
        self._send = send
        self._models = models
        self._lock = threading.Lock()
        self._gatherings: dict[_Key, Gathering[_Caller]] = {}
        self._closed = False

    def call(self, small: SmallCall, name: ModelName, limit: TimeLimit) -> Any:
        """Return the answer to a small call, which is sent with the waiting calls of its kind and model.

        Raises:
            ConvvaeError: As without joint calls. Time limit and indices of rows are the caller's own.
        """
        if self._closed:
            raise ClientClosed("the client is closed")
        caller = _Caller(small, limit)
        outcome = self._take_part(caller, (small.kind, name))
        if outcome is Verdict.ALONE:
            return self._send(small.operation, name, limit)
        if isinstance(outcome, ConvvaeError):
            raise outcome
        return outcome

    def close(self) -> None:
        """End the calls that wait with `Cancelled`."""
        with self._lock:
            self._closed = True
            for gathering in self._gatherings.values():
                for caller in gathering.clear():
                    caller.inbox.put(Cancelled("the client was closed during the call"))

    def _take_part(self, caller: _Caller, key: _Key) -> _Outcome:
        try:
            with self._lock:
                self._gatherings.setdefault(key, Gathering()).add(caller)
                self._appoint(key)
            while (message := self._wait(caller, key)) is _Turn.LEAD:
                self._lead(caller, key)
            return message
        finally:
            # An interrupt such as Ctrl-C may come here too.
            try:
                self._leave(caller, key)
            except BaseException:
                self._leave(caller, key)
                raise

    def _wait(self, caller: _Caller, key: _Key) -> _Turn | _Outcome:
        """Wait for the turn to lead or for the outcome, until the caller's time has passed."""
        try:
            return caller.inbox.get(timeout=caller.limit.remaining_s() * PATIENCE)
        except queue.Empty:
            with self._lock:
                if self._gatherings[key].waits(caller):
                    self._appoint(key, overdue=True)
        try:
            return caller.inbox.get(timeout=caller.limit.remaining_s())
        except queue.Empty:
            return caller.limit.passed()

    def _appoint(self, key: _Key, *, overdue: bool = False) -> None:
        leader = self._gatherings[key].appoint(overdue=overdue)
        if leader is not None:
            leader.inbox.put(_Turn.LEAD)

    def _lead(self, leader: _Caller, key: _Key) -> None:
        """Send a joint call, and give its outcome to each of its callers."""
        name = key[1]
        with self._lock:
            leader.group = self._gatherings[key].take(leader, self._models.get(name))
        if len(leader.group) == 1:
            leader.inbox.put(self._send(leader.small.operation, name, leader.limit))
            return
        outcomes = self._send_joint(leader, name)
        with self._lock:
            self._deliver(leader, outcomes, self._gatherings[key])
            leader.group = []
            self._appoint(key)

    def _send_joint(self, leader: _Caller, name: ModelName) -> Sequence[_Outcome]:
        operations = [caller.small.operation for caller in leader.group]
        counts = [operation.rows for operation in operations]
        try:
            return divide(self._send(join(operations), name, leader.limit), counts)
        except DeadlineExceeded as error:
            # Only a caller that came after the leader was appointed can have more time than the leader.
            return [
                Verdict.AGAIN if caller.limit.remaining_s() else detached(error) for caller in leader.group
            ]
        except ConvvaeError as error:
            return judge(error, counts)
        except Exception:  # noqa: BLE001 - each caller sees the cause in its own call
            return [Verdict.ALONE] * len(counts)

    def _deliver(self, leader: _Caller, outcomes: Sequence[_Outcome], gathering: Gathering[_Caller]) -> None:
        heir = None
        again = []
        for caller, outcome in zip(leader.group, outcomes, strict=True):
            if caller.gone:
                continue
            if outcome is Verdict.AGAIN:
                again.append(caller)
                continue
            caller.inbox.put(outcome)
            if caller is not leader:
                heir = caller
        gathering.put_back(again)
        gathering.pass_slot(leader, heir)

    def _leave(self, caller: _Caller, key: _Key) -> None:
        """Pass on the caller's slot, and the callers whose joint call it has not ended."""
        with self._lock:
            caller.gone = True
            gathering = self._gatherings.get(key)
            if gathering is None:
                return
            gathering.leave(caller)
            gathering.pass_slot(caller, None)
            gathering.put_back(other for other in caller.group if not other.gone)
            caller.group = []
            self._appoint(key)
            if gathering.idle:
                del self._gatherings[key]
