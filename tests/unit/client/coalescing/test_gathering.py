"""The waiting calls of one kind, and their slots, without threads."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convvae.calls.chunks import OVERHEAD_BYTES
from convvae.calls.latent_operations import Decode
from convvae.coalescing.gathering import MAX_IN_FLIGHT, Gathering, Member
from convvae.coalescing.small_call import small_call
from convvae.results import Likelihood, Limits, ModelInfo
from convvae.transport.scheduler import TimeLimit


def member(rows: int = 1, timeout_s: float = 10.0) -> Member:
    small = small_call(Decode(np.zeros((rows, 4), np.float32)))
    assert small is not None
    return Member(small, TimeLimit(timeout_s, clock=lambda: 0.0))


def model(**limits: int) -> ModelInfo:
    return ModelInfo(
        model="m", version=1, precision="fp32", objective="vae", likelihood=Likelihood(name="bernoulli"),
        height=2, width=3, channels=1, latent_dim=4, capabilities=(), precisions=(), manifest_json="",
        limits=Limits(**limits),
    )  # fmt: skip


def gathered(*members: Member) -> Gathering[Member]:
    gathering: Gathering[Member] = Gathering()
    for each in members:
        gathering.add(each)
    return gathering


def test_a_call_alone_leads_at_once() -> None:
    """The first call gets the slot; the next wait until it is free."""
    first, second = member(), member()
    gathering = gathered(first)
    assert gathering.next_leader() is first
    gathering.take_slot(first)
    assert gathering.choose(first, None) == [first]
    gathering.add(second)
    assert gathering.next_leader() is None
    assert gathering.next_leader(overdue=True) is second
    gathering.release_slot(first)
    assert gathering.next_leader() is second


def test_a_shared_slot_is_free_after_its_last_holder() -> None:
    """Nobody leads while one of the callers of the last joint call has not left."""
    first, second, third = member(), member(), member()
    gathering = gathered(first, second, third)
    gathering.take_slot(first)
    gathering.remove([first, second])
    for _ in range(2):
        gathering.share_slot(first, [first, second])
    gathering.release_slot(first)
    assert gathering.next_leader() is None
    for _ in range(2):
        gathering.release_slot(second)
    assert gathering.next_leader() is third


def test_the_latest_deadline_leads() -> None:
    """The leader's time covers every call that waits, and the others keep their order behind it."""
    members = [member(timeout_s=seconds) for seconds in (1.0, 9.0, 3.0)]
    gathering = gathered(*members)
    leader = gathering.next_leader()
    assert leader is members[1]
    gathering.take_slot(leader)
    assert gathering.choose(leader, None) == [members[1], members[0], members[2]]


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, 6),
        ({"max_rows_per_call": 7}, 3),
        ({"max_rows_per_call": 1}, 1),
        ({"max_queued_rows": 8}, 4),
        ({"max_rows_per_call": 100, "max_queued_rows": 4}, 2),
        # A row has 16 bytes in the request, and 6 in the reply.
        ({"max_message_bytes": OVERHEAD_BYTES + 5 * 32}, 5),
        ({"max_message_bytes": OVERHEAD_BYTES + 1}, 1),
    ],
)
def test_a_joint_call_keeps_the_limits(limits: dict[str, int], expected: int) -> None:
    """No more calls are joined than one request and one reply may contain, but always the leader."""
    members = [member(rows=2) for _ in range(6)]
    gathering = gathered(*members)
    gathering.take_slot(members[0])
    assert gathering.choose(members[0], model(**limits)) == members[:expected]


def test_replies_count_too() -> None:
    """Where replies are larger than requests, they bound the joint call."""
    info = model(max_message_bytes=OVERHEAD_BYTES + 1000)
    large = ModelInfo(**{**vars(info), "height": 20, "width": 20})
    members = [member() for _ in range(6)]
    gathering = gathered(*members)
    gathering.take_slot(members[0])
    assert gathering.choose(members[0], large) == members[:2]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_call_is_lost_or_taken_twice(data: st.DataObject) -> None:
    """For any order of arrivals, ends and departures, each call is sent once unless it has left."""
    gathering: Gathering[Member] = Gathering()
    info = model(max_rows_per_call=6)
    arrived: list[Member] = []
    in_flight: dict[Member, list[Member]] = {}
    ended: list[Member] = []
    left: set[Member] = set()
    for _ in range(data.draw(st.integers(1, 40))):
        match data.draw(st.sampled_from(["arrive", "arrive", "end", "again", "leave"])):
            case "arrive":
                arrived.append(member(data.draw(st.integers(1, 4)), data.draw(st.floats(1, 9))))
                gathering.add(arrived[-1])
            case "end" if in_flight:
                leader, group = in_flight.popitem()
                ended += group
                gathering.release_slot(leader)
            case "again" if in_flight:
                leader, group = in_flight.popitem()
                gathering.put_back(group)
                gathering.release_slot(leader)
            case "leave" if gathering.waiting:
                away: Any = data.draw(st.sampled_from(gathering.waiting))
                left.add(away)
                gathering.remove([away])
        while (chosen := gathering.next_leader()) is not None:
            longest = max(each.limit.end_s() for each in gathering.waiting)
            assert chosen.limit.end_s() == longest
            gathering.take_slot(chosen)
            group = gathering.choose(chosen, info)
            gathering.remove(group)
            assert sum(each.small.rows for each in group) <= 6
            in_flight[chosen] = group
        assert len(in_flight) <= MAX_IN_FLIGHT
        assert bool(in_flight) or not gathering.waiting
    now = [*ended, *gathering.waiting, *(each for group in in_flight.values() for each in group)]
    assert sorted(map(id, [*now, *left])) == sorted(map(id, arrived))
