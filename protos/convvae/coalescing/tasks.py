"""Joint calls of the tasks that share an `AsyncClient`. Each joint call runs in a task of its own."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

from convvae.calls.exchanges import ModelCache
from convvae.coalescing.gathering import PATIENCE, Gathering, Member
from convvae.coalescing.joint_operation import Joinable, Kind, SmallCall, Verdict, divide, join, judge
from convvae.errors import Cancelled, ClientClosed, ConvvaeError
from convvae.model_name import ModelName
from convvae.results import Answer
from convvae.transport.scheduler import TimeLimit

__all__ = ["TaskCoalescer"]

Send: TypeAlias = Callable[[Joinable, ModelName, TimeLimit], Awaitable[Answer]]
_Key: TypeAlias = tuple[Kind, ModelName]
_Outcome: TypeAlias = Answer | ConvvaeError | Verdict


@dataclass(eq=False, slots=True)
class _Caller(Member):
    """A task in a call.

    Attributes:
        outcome: The future of the outcome. It is done when the caller has left.
        joint: The joint call in flight that has its rows.
    """

    outcome: "asyncio.Future[_Outcome]" = field(default_factory=asyncio.Future)
    joint: "_JointCall | None" = None

    def settle(self, outcome: _Outcome) -> None:
        """Set the outcome, unless the caller has left."""
        if not self.outcome.done():
            self.outcome.set_result(outcome)


@dataclass(eq=False, slots=True)
class _JointCall:
    """A joint call in flight: the callers that still want its outcome, and the task that sends it."""

    callers: dict[_Caller, None]
    task: "asyncio.Task[None]"


class TaskCoalescer:
    """Joins the small calls of the tasks of one event loop.

    A caller that finds no joint call in flight sends its rows itself. Every other joint call has a task, so
    that the end of one caller disturbs no other. Its slot becomes free after its callers have resumed: they
    may call again before the next joint call.

    Args:
        send: Sends one operation and returns its answer.
        models: The descriptions of models, which have the server's limits.
    """

    def __init__(self, send: Send, models: ModelCache) -> None:
        self._send = send
        self._models = models
        self._gatherings: dict[_Key, Gathering[_Caller]] = {}
        self._closed = False

    async def call(self, small: SmallCall, name: ModelName, limit: TimeLimit) -> Any:
        """Return the answer to a small call, which is sent with the waiting calls of its kind and model.

        Raises:
            ConvvaeError: As without joint calls. Time limit and indices of rows are the caller's own.
        """
        if self._closed:
            raise ClientClosed("the client is closed")
        key = (small.kind, name)
        caller = _Caller(small, limit)
        gathering = self._gatherings.setdefault(key, Gathering())
        gathering.add(caller)
        if gathering.appoint() is caller:
            try:
                return await self._send(small.operation, name, limit)
            finally:
                self._end_alone(caller, key)
        outcome = await self._wait(caller, key)
        if outcome is Verdict.ALONE:
            return await self._send(small.operation, name, limit)
        if isinstance(outcome, ConvvaeError):
            raise outcome
        return outcome

    def close(self) -> None:
        """End the calls that wait with `Cancelled`."""
        self._closed = True
        for gathering in self._gatherings.values():
            for caller in gathering.clear():
                caller.settle(Cancelled("the client was closed during the call"))

    async def _wait(self, caller: _Caller, key: _Key) -> _Outcome:
        """Wait for the outcome, until the caller's time has passed."""
        loop = asyncio.get_running_loop()
        remaining_s = caller.limit.remaining_s()
        timers = (
            loop.call_later(remaining_s * PATIENCE, self._hurry, caller, key),
            loop.call_later(remaining_s, lambda: caller.settle(caller.limit.passed())),
        )
        try:
            return await caller.outcome
        finally:
            for timer in timers:
                timer.cancel()
            self._leave(caller, key)

    def _hurry(self, caller: _Caller, key: _Key) -> None:
        if self._gatherings[key].waits(caller):
            self._start(key, overdue=True)

    def _leave(self, caller: _Caller, key: _Key) -> None:
        """Forget a caller. Cancel its joint call if nobody wants the outcome any more."""
        joint, caller.joint = caller.joint, None
        if joint is not None:
            del joint.callers[caller]
            if not joint.callers:
                joint.task.cancel()
        elif key in self._gatherings:
            self._gatherings[key].leave(caller)

    def _start(self, key: _Key, *, overdue: bool = False) -> None:
        """Start a joint call if calls wait and a slot is free."""
        gathering = self._gatherings[key]
        leader = gathering.appoint(overdue=overdue)
        if leader is None:
            if gathering.idle:
                del self._gatherings[key]
            return
        group = gathering.take(leader, self._models.get(key[1]))
        task = asyncio.get_running_loop().create_task(self._run(group, key[1]))
        joint = _JointCall(dict.fromkeys(group), task)
        for caller in group:
            caller.joint = joint
        task.add_done_callback(partial(self._end, leader, joint, key))

    async def _run(self, group: list[_Caller], name: ModelName) -> None:
        outcomes = await self._send_joint(group, name)
        for caller, outcome in zip(group, outcomes, strict=True):
            if outcome is not Verdict.AGAIN:
                caller.joint = None
                caller.settle(outcome)

    async def _send_joint(self, group: list[_Caller], name: ModelName) -> Sequence[_Outcome]:
        """Send the rows of all callers within the time of the first, which has the most."""
        counts = [caller.small.operation.rows for caller in group]
        operation = join([caller.small.operation for caller in group])
        try:
            return divide(await self._send(operation, name, group[0].limit), counts)
        except ConvvaeError as error:
            return judge(error, counts)
        except Exception:  # noqa: BLE001 - each caller sees the cause in its own call
            return [Verdict.ALONE] * len(counts)

    def _end(self, leader: _Caller, joint: _JointCall, key: _Key, task: "asyncio.Task[None]") -> None:
        """Free the slot of a joint call. Callers without an outcome go into the next one."""
        del task
        gathering = self._gatherings[key]
        again = [caller for caller in joint.callers if not caller.outcome.done()]
        for caller in again:
            caller.joint = None
        gathering.put_back(again)
        self._free(leader, key)

    def _end_alone(self, caller: _Caller, key: _Key) -> None:
        """Free the slot of a caller that has sent its rows itself."""
        if self._gatherings[key].waiting:
            asyncio.get_running_loop().call_soon(self._free, caller, key)
        else:
            self._free(caller, key)

    def _free(self, holder: _Caller, key: _Key) -> None:
        self._gatherings[key].pass_slot(holder, None)
        self._start(key)
