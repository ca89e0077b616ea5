"""The calls of one kind that wait to be joined, and the right to send a joint call. State only."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from convvae.calls.chunks import message_room
from convvae.coalescing.small_call import SmallCall
from convvae.results import Limits, ModelInfo
from convvae.transport.scheduler import TimeLimit

__all__ = ["MAX_IN_FLIGHT", "PATIENCE", "Gathering", "Member"]

# Joint calls of one kind in flight. With two, each has half the rows, and the server takes 1.5 times the
# processor time for 16 callers of one row.
MAX_IN_FLIGHT = 1
# Maximum share of its time that a call waits for the joint calls before it. So a joint call that hangs, for
# example on a dead connection, delays the others but does not fail them.
PATIENCE = 0.1


@dataclass(eq=False, slots=True)
class Member:
    """A caller's small call, and the time that the caller gives it."""

    small: SmallCall
    limit: TimeLimit


M = TypeVar("M", bound=Member)


class Gathering(Generic[M]):
    """The calls of one kind.

    A slot is the right to send a joint call, and there are `MAX_IN_FLIGHT`. A call that finds a free slot
    takes it at once. Later calls wait, and leave together with the next free slot. Several calls may hold
    one slot, which is free when all have released it.

    Every method may be called twice with the same effect as once, so that an interrupted caller can repair
    what it has left half done.
    """

    def __init__(self) -> None:
        # A dict keeps the order of arrival and removes from the middle in constant time.
        self._waiting: dict[M, None] = {}
        self._slots: list[set[M]] = []

    @property
    def waiting(self) -> list[M]:
        """The calls that wait, in order of arrival."""
        return list(self._waiting)

    def is_waiting(self, member: M) -> bool:
        """Return whether a call waits."""
        return member in self._waiting

    def add(self, member: M) -> None:
        """Let a call wait behind the others."""
        self._waiting[member] = None

    def put_back(self, members: Iterable[M]) -> None:
        """Let calls wait again, before the others."""
        self._waiting = dict.fromkeys([*members, *self._waiting])

    def remove(self, members: Iterable[M]) -> None:
        """Let calls wait no more."""
        for member in members:
            self._waiting.pop(member, None)

    def next_leader(self, *, overdue: bool = False) -> M | None:
        """Return the call that should take a slot now, or None.

        This is the waiting call with the latest deadline. It sends the joint call within its own time, which
        then cuts no other call short.

        Args:
            overdue: Whether there is one slot more than usual, because a call has waited too long.
        """
        if not self._waiting or (len(self._slots) >= MAX_IN_FLIGHT and not overdue):
            return None
        return max(self.waiting, key=lambda member: member.limit.end_s())

    def take_slot(self, leader: M) -> None:
        """Give a slot to a call, which waits no more."""
        self._slots.append({leader})
        self._waiting.pop(leader, None)

    def share_slot(self, holder: M, others: Iterable[M]) -> None:
        """Let other calls hold the slot of a call too."""
        for slot in self._slots:
            if holder in slot:
                slot.update(others)

    def release_slot(self, holder: M) -> None:
        """Let a call hold no slot."""
        for slot in self._slots:
            slot.discard(holder)
        self._slots = [slot for slot in self._slots if slot]

    def choose(self, leader: M, info: ModelInfo | None) -> list[M]:
        """Return the leader and as many waiting calls, in order of arrival, as one message may contain.

        Args:
            leader: The call that sends.
            info: The model with the limits of its server, or None if they are not known yet.
        """
        max_rows, max_bytes = _room(leader.small, info)
        group, rows, num_bytes = [leader], leader.small.rows, leader.small.num_bytes
        for member in self.waiting:
            rows += member.small.rows
            num_bytes += member.small.num_bytes
            if rows > max_rows or num_bytes > max_bytes:
                break
            if member is not leader:
                group.append(member)
        return group


def _room(small: SmallCall, info: ModelInfo | None) -> tuple[int, int]:
    """Return the maximum number of rows, and of bytes of rows, in one joint call."""
    limits = info.limits if info else Limits()
    max_bytes = message_room(limits)
    reply_bytes = small.operation.reply_bytes(info) if info else 1
    bounds = (limits.max_rows_per_call, limits.max_queued_rows, max(1, max_bytes // reply_bytes))
    return min(bound for bound in bounds if bound), max_bytes
