"""Joint calls of the tasks that share an `AsyncClient`. Each joint call runs in a task of its own."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias
from weakref import WeakValueDictionary

from convvae.calls.exchanges import ModelCache
from convvae.coalescing.gathering import PATIENCE, Gathering, Member
from convvae.coalescing.outcome import Outcome, Verdict, divide, judge
from convvae.coalescing.small_call import CallKind, Joinable, SmallCall, join
from convvae.errors import Cancelled, ClientClosed, ConvvaeError
from convvae.model_name import ModelName
from convvae.results import Answer
from convvae.transport.scheduler import TimeLimit

__all__ = ["TaskCoalescer"]

Send: TypeAlias = Callable[[Joinable, ModelName, TimeLimit], Awaitable[Answer]]


@dataclass(eq=False, slots=True)
class _Caller(Member):
    """A task in a call.

    Attributes:
        outcome: The future of the outcome. It is done when the caller has left.
        joint: The joint call in flight that has its rows.
        patience: The timer that ends its patience with the joint calls before it.
    """

    outcome: "asyncio.Future[Outcome]" = field(default_factory=asyncio.Future)
    joint: "_JointCall | None" = None
    patience: asyncio.TimerHandle | None = None

    def settle(self, outcome: Outcome) -> None:
        """Set the outcome, unless the caller has left."""
        if not self.outcome.done():
            self.outcome.set_result(outcome)


@dataclass(eq=False, slots=True)
class _JointCall:
    """A joint call in flight: the task that sends it, and the callers that want its outcome."""

    task: "asyncio.Task[None]"
    callers: dict[_Caller, None]


class TaskCoalescer:
    """Joins the small calls of the tasks of one event loop.

    A caller that finds a free slot sends its rows itself. Every other joint call has a task, so that the end
    of one caller disturbs no other. Its slot becomes free after its callers have resumed. So they may call
    again before the next joint call leaves.

    Args:
        send: Sends one operation and returns its answer.
        models: The descriptions of models, which have the server's limits.
    """

    def __init__(self, send: Send, models: ModelCache) -> None:
        self._send = send
        self._models = models
        # A gathering lives as long as a caller or a joint call is in it.
        self._gatherings: WeakValueDictionary[tuple[CallKind, ModelName], Gathering[_Caller]]
        self._gatherings = WeakValueDictionary()
        self._closed = False

    async def call(self, small: SmallCall, name: ModelName, limit: TimeLimit) -> Any:
        """Return the answer to a small call, which is sent with the waiting calls of its kind and model.

        Raises:
            ConvvaeError: As without joint calls. Time limit and indices of rows are the caller's own.
        """
        if self._closed:
            raise ClientClosed("the client is closed")
        outcome = await self._take_part(_Caller(small, limit), name)
        if outcome is Verdict.ALONE:
            return await self._send(small.operation, name, limit)
        if isinstance(outcome, ConvvaeError):
            try:
                raise outcome
            finally:
                # The error refers to this frame: without a circle, its rows are freed with it.
                del outcome
        return outcome

    def close(self) -> None:
        """End the calls that wait with `Cancelled`."""
        self._closed = True
        for gathering in self._gatherings.values():
            for caller in gathering.waiting:
                caller.settle(Cancelled("the client was closed during the call"))
            gathering.remove(gathering.waiting)

    async def _take_part(self, caller: _Caller, name: ModelName) -> Outcome:
        key = caller.small.kind, name
        gathering = self._gatherings.get(key)
        if gathering is None:
            self._gatherings[key] = gathering = Gathering()
        gathering.add(caller)
        if gathering.next_leader() is not caller:
            return await self._wait(caller, gathering, name)
        gathering.take_slot(caller)
        try:
            return await self._send(caller.small.operation, name, caller.limit)
        finally:
            self._end_alone(caller, gathering, name)

    async def _wait(self, caller: _Caller, gathering: Gathering[_Caller], name: ModelName) -> Outcome:
        """Wait for the outcome, until the caller's time has passed."""
        end = asyncio.get_running_loop().call_later(
            caller.limit.remaining_s(), lambda: caller.settle(caller.limit.passed())
        )
        self._renew_patience(caller, gathering, name)
        try:
            return await caller.outcome
        finally:
            end.cancel()
            _leave(caller, gathering)

    def _renew_patience(self, caller: _Caller, gathering: Gathering[_Caller], name: ModelName) -> None:
        """Let a caller wait for a share of the time that it has left, and hurry then."""
        if caller.patience is not None:
            caller.patience.cancel()
        caller.patience = asyncio.get_running_loop().call_later(
            caller.limit.remaining_s() * PATIENCE, self._hurry, caller, gathering, name
        )

    def _hurry(self, caller: _Caller, gathering: Gathering[_Caller], name: ModelName) -> None:
        if gathering.is_waiting(caller):
            self._start(gathering, name, overdue=True)

    def _start(self, gathering: Gathering[_Caller], name: ModelName, *, overdue: bool = False) -> None:
        """Start a joint call if calls wait and a slot is free."""
        leader = gathering.next_leader(overdue=overdue)
        if leader is None:
            return
        gathering.take_slot(leader)
        group = gathering.choose(leader, self._models.get(name))
        gathering.remove(group)
        task = asyncio.get_running_loop().create_task(self._run(group, name))
        joint = _JointCall(task, dict.fromkeys(group))
        for caller in group:
            caller.joint = joint
        task.add_done_callback(partial(self._end, leader, joint, gathering, name))

    async def _run(self, group: list[_Caller], name: ModelName) -> None:
        outcomes = await self._send_joint(group, name)
        for caller, outcome in zip(group, outcomes, strict=True):
            if outcome is not Verdict.AGAIN:
                caller.settle(outcome)

    async def _send_joint(self, group: list[_Caller], name: ModelName) -> Sequence[Outcome]:
        """Send the rows of all callers within the time of the first, which has the latest deadline."""
        counts = [caller.small.rows for caller in group]
        try:
            joint = join([caller.small.operation for caller in group])
            return divide(await self._send(joint, name, group[0].limit), counts)
        except ConvvaeError as error:
            return judge(error, counts)
        except Exception:  # noqa: BLE001 - each caller sees the cause in its own call
            return [Verdict.ALONE] * len(counts)

    def _end(
        self,
        leader: _Caller,
        joint: _JointCall,
        gathering: Gathering[_Caller],
        name: ModelName,
        _task: "asyncio.Task[None]",
    ) -> None:
        """Free the slot of a joint call. Callers without an outcome go into the next one."""
        again = [caller for caller in joint.callers if not caller.outcome.done()]
        for caller in again:
            caller.joint = None
            self._renew_patience(caller, gathering, name)
        gathering.put_back(again)
        self._free(leader, gathering, name)

    def _end_alone(self, caller: _Caller, gathering: Gathering[_Caller], name: ModelName) -> None:
        """Free the slot of a caller that has sent its rows itself."""
        if gathering.waiting:
            asyncio.get_running_loop().call_soon(self._free, caller, gathering, name)
        else:
            gathering.release_slot(caller)

    def _free(self, holder: _Caller, gathering: Gathering[_Caller], name: ModelName) -> None:
        gathering.release_slot(holder)
        self._start(gathering, name)


def _leave(caller: _Caller, gathering: Gathering[_Caller]) -> None:
    """Forget a caller, and cancel its joint call if nobody else wants its outcome."""
    gathering.remove([caller])
    if caller.patience is not None:
        caller.patience.cancel()
    joint, caller.joint = caller.joint, None
    if joint is not None:
        joint.callers.pop(caller, None)
        if not joint.callers:
            joint.task.cancel()
