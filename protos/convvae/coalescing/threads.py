"""Joint calls of the threads that share a `Client`. They need no thread of their own: a caller sends."""

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, TypeAlias
from weakref import WeakValueDictionary

from convvae.calls.exchanges import ModelCache
from convvae.coalescing.gathering import PATIENCE, Gathering, Member
from convvae.coalescing.outcome import Outcome, Verdict, detached, divide, judge
from convvae.coalescing.small_call import CallKind, Joinable, SmallCall, join
from convvae.errors import Cancelled, ClientClosed, ConvvaeError, DeadlineExceeded
from convvae.model_name import ModelName
from convvae.results import Answer
from convvae.transport.scheduler import TimeLimit

__all__ = ["ThreadCoalescer"]

Send: TypeAlias = Callable[[Joinable, ModelName, TimeLimit], Answer]


class _Turn(Enum):
    LEAD = auto()
    WAIT_AGAIN = auto()


@dataclass(eq=False, slots=True)
class _Caller(Member):
    """A thread in a call.

    Attributes:
        inbox: Receives each turn to lead or to wait again, and the outcome.
        group: The callers whose rows this thread sends, until they have their outcome.
        gone: Whether it has left, with or without an outcome.
    """

    inbox: "queue.SimpleQueue[_Turn | Outcome]" = field(default_factory=queue.SimpleQueue)
    group: "list[_Caller]" = field(default_factory=list)
    gone: bool = False


class ThreadCoalescer:
    """Joins the small calls of threads.

    The caller with a slot, the leader, sends the rows of all who wait and gives each its outcome. The slot is
    free when all of them have left. So they may call again before the next joint call leaves.

    An interrupt such as Ctrl-C may end a caller between any two lines here. Each step is therefore written so
    that `_leave` can repair it.

    Args:
        send: Sends one operation and blocks until its answer is there.
        models: The descriptions of models, which have the server's limits.
    """

    def __init__(self, send: Send, models: ModelCache) -> None:
        self._send = send
        self._models = models
        # A signal handler may close the client while its thread holds the lock.
        self._lock = threading.RLock()
        # A gathering lives as long as a caller is in it.
        self._gatherings: WeakValueDictionary[tuple[CallKind, ModelName], Gathering[_Caller]]
        self._gatherings = WeakValueDictionary()
        self._closed = False

    def call(self, small: SmallCall, name: ModelName, limit: TimeLimit) -> Any:
        """Return the answer to a small call, which is sent with the waiting calls of its kind and model.

        Raises:
            ConvvaeError: As without joint calls. Time limit and indices of rows are the caller's own.
        """
        if self._closed:
            raise ClientClosed("the client is closed")
        outcome = self._take_part(_Caller(small, limit), name)
        if outcome is Verdict.ALONE:
            return self._send(small.operation, name, limit)
        if isinstance(outcome, ConvvaeError):
            try:
                raise outcome
            finally:
                # The error refers to this frame: without a circle, its rows are freed with it.
                del outcome
        return outcome

    def close(self) -> None:
        """End the calls that wait with `Cancelled`."""
        with self._lock:
            self._closed = True
            for gathering in self._gatherings.values():
                for caller in gathering.waiting:
                    caller.inbox.put(Cancelled("the client was closed during the call"))
                    gathering.remove([caller])

    def _take_part(self, caller: _Caller, name: ModelName) -> Outcome:
        key = caller.small.kind, name
        with self._lock:
            gathering = self._gatherings.get(key)
            if gathering is None:
                self._gatherings[key] = gathering = Gathering()
        try:
            with self._lock:
                gathering.add(caller)
                _appoint(gathering)
            while isinstance(message := self._wait(caller, gathering), _Turn):
                if message is _Turn.LEAD:
                    self._lead(caller, gathering, name)
            return message
        finally:
            try:
                self._leave(caller, gathering)
            except BaseException:
                self._leave(caller, gathering)
                raise

    def _wait(self, caller: _Caller, gathering: Gathering[_Caller]) -> _Turn | Outcome:
        """Wait for a turn or for the outcome, until the caller's time has passed."""
        try:
            return caller.inbox.get(timeout=caller.limit.remaining_s() * PATIENCE)
        except queue.Empty:
            with self._lock:
                if gathering.is_waiting(caller):
                    _appoint(gathering, overdue=True)
        try:
            return caller.inbox.get(timeout=caller.limit.remaining_s())
        except queue.Empty:
            return caller.limit.passed()

    def _lead(self, leader: _Caller, gathering: Gathering[_Caller], name: ModelName) -> None:
        """Send a joint call and give its outcome to each of its callers."""
        with self._lock:
            leader.group = gathering.choose(leader, self._models.get(name))
            gathering.remove(leader.group)
        if len(leader.group) == 1:
            leader.inbox.put(self._send(leader.small.operation, name, leader.limit))
            return
        outcomes = self._send_joint(leader, name)
        with self._lock:
            present = [(c, o) for c, o in zip(leader.group, outcomes, strict=True) if not c.gone]
            _put_back(gathering, [caller for caller, outcome in present if outcome is Verdict.AGAIN])
            answered = [(c, o) for c, o in present if o is not Verdict.AGAIN]
            for caller, outcome in answered:
                caller.inbox.put(outcome)
            gathering.share_slot(leader, [caller for caller, _ in answered])
            if gathering.is_waiting(leader):
                gathering.release_slot(leader)
            leader.group = []
            _appoint(gathering)

    def _send_joint(self, leader: _Caller, name: ModelName) -> Sequence[Outcome]:
        """Send the rows of the leader's group within the leader's time."""
        counts = [caller.small.rows for caller in leader.group]
        try:
            joint = join([caller.small.operation for caller in leader.group])
            return divide(self._send(joint, name, leader.limit), counts)
        except DeadlineExceeded as error:
            # A caller that came after the leader was appointed may have more time than the leader.
            return [
                Verdict.AGAIN if caller.limit.remaining_s() else detached(error) for caller in leader.group
            ]
        except ConvvaeError as error:
            return judge(error, counts)
        except Exception:  # noqa: BLE001 - each caller sees the cause in its own call
            return [Verdict.ALONE] * len(counts)

    def _leave(self, caller: _Caller, gathering: Gathering[_Caller]) -> None:
        """Forget a caller. Another takes over its slot, if it is free, and the rows that it has not sent."""
        with self._lock:
            caller.gone = True
            gathering.remove([caller])
            _put_back(gathering, [other for other in caller.group if not other.gone])
            caller.group = []
            gathering.release_slot(caller)
            _appoint(gathering)


def _put_back(gathering: Gathering[_Caller], callers: Sequence[_Caller]) -> None:
    """Let callers wait again, each with new patience."""
    gathering.put_back(callers)
    for caller in callers:
        caller.inbox.put(_Turn.WAIT_AGAIN)


def _appoint(gathering: Gathering[_Caller], *, overdue: bool = False) -> None:
    """Give a free slot to a waiting caller."""
    leader = gathering.next_leader(overdue=overdue)
    if leader is not None:
        leader.inbox.put(_Turn.LEAD)
        gathering.take_slot(leader)
