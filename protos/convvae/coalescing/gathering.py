"""The calls of one kind that wait to be joined, and the right to send a joint call. State only."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from convvae.calls.chunks import message_room
from convvae.coalescing.joint_operation import Joinable, SmallCall
from convvae.results import Limits, ModelInfo
from convvae.transport.scheduler import TimeLimit

__all__ = ["MAX_IN_FLIGHT", "PATIENCE", "Gathering", "Member"]

# Joint calls of one kind in flight.
MAX_IN_FLIGHT = 1
# Maximum share of its time that a call waits for the joint calls before it. A joint call that hangs, for
# example on a dead connection, then delays the others but does not fail them.
PATIENCE = 0.1


@dataclass(eq=False, slots=True)
class Member:
    """One caller's call, which may be sent together with others.

    Attributes:
        small: The rows of the caller.
        limit: The time of the caller.
    """

    small: SmallCall
    limit: TimeLimit


M = TypeVar("M", bound=Member)


class Gathering(Generic[M]):
    """The calls of one kind.

    A slot is the right to send a joint call. There are `MAX_IN_FLIGHT` slots. A call that finds a free slot
    goes out at once. Calls that arrive later wait, and leave together with the next free slot.
    """

    def __init__(self) -> None:
        # A dict keeps the order and removes from the middle in constant time.
        self._waiting: dict[M, None] = {}
        self._holders: set[M] = set()

    @property
    def idle(self) -> bool:
        """Whether no call waits and none holds a slot."""
        return not self._waiting and not self._holders

    @property
    def waiting(self) -> bool:
        """Whether calls wait."""
        return bool(self._waiting)

    def add(self, member: M) -> None:
        """Let a call wait behind the others."""
        self._waiting[member] = None

    def put_back(self, members: Iterable[M]) -> None:
        """Let calls wait again, before all others."""
        self._waiting = dict.fromkeys([*members, *self._waiting])

    def leave(self, member: M) -> None:
        """Forget a call that waits."""
        self._waiting.pop(member, None)

    def clear(self) -> list[M]:
        """Forget the calls that wait, and return them."""
        waiting, self._waiting = self._waiting, {}
        return list(waiting)

    def waits(self, member: M) -> bool:
        """Return whether a call still waits."""
        return member in self._waiting

    def appoint(self, *, overdue: bool = False) -> M | None:
        """Give a free slot to a waiting call and return it, the leader; or return None.

        The leader is the call with the latest deadline, so that the end of its time cuts no other call short.

        Args:
            overdue: Whether there is a slot more than usual, because a call has waited too long.
        """
        if not self._waiting or (len(self._holders) >= MAX_IN_FLIGHT and not overdue):
            return None
        leader = max(self._waiting, key=_end_s)
        del self._waiting[leader]
        self._holders.add(leader)
        return leader

    def pass_slot(self, leader: M, heir: M | None) -> None:
        """Give the slot of `leader` to another call, or free it."""
        self._holders.discard(leader)
        if heir is not None:
            self._holders.add(heir)

    def take(self, leader: M, info: ModelInfo | None) -> list[M]:
        """Return the leader and as many waiting calls, in order of arrival, as one message may contain.

        Args:
            leader: A call that `appoint` has returned.
            info: The model and the limits of its server, or None if they are not known yet.
        """
        max_rows, max_bytes = _room(leader.small.operation, info)
        rows, num_bytes = leader.small.operation.rows, leader.small.num_bytes
        taken = []
        for member in self._waiting:
            rows += member.small.operation.rows
            num_bytes += member.small.num_bytes
            if rows > max_rows or num_bytes > max_bytes:
                break
            taken.append(member)
        for member in taken:
            del self._waiting[member]
        return [leader, *taken]


def _end_s(member: Member) -> float:
    return member.limit.end_s()


def _room(operation: Joinable, info: ModelInfo | None) -> tuple[int, int]:
    """Return the maximum number of rows, and of bytes, of one joint call."""
    limits = info.limits if info else Limits()
    max_bytes = message_room(limits)
    reply_bytes = operation.reply_bytes(info) if info else 1
    bounds = (limits.max_rows_per_call, limits.max_queued_rows, max_bytes // reply_bytes)
    return min(bound for bound in bounds if bound), max_bytes
