"""The state machine alone, under a clock that the tests move."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convvae.calls import Batch, Call
from convvae.config import RetryConfig
from convvae.errors import DeadlineExceeded, InvalidInput, Overloaded, Unavailable, Violation
from convvae.flight import Flight, TimeLimit
from convvae.retry import RetryPolicy


class FakeClock:
    """Time that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def batch(count: int, in_flight: int, *, offset: int = 0, retry: bool = True) -> Batch:
    return Batch(
        [Call("Encode", object, lambda reply: reply, offset=offset, retry=retry) for _ in range(count)],
        in_flight,
    )


def flight(
    calls: Batch, clock: FakeClock, *, timeout_s: float = 10.0, draw: float = 1.0, **rules: Any
) -> Flight:
    policy = RetryPolicy(RetryConfig(**rules), draw=lambda: draw)
    return Flight(calls, policy, TimeLimit(timeout_s, clock=clock))


@given(count=st.integers(1, 30), in_flight=st.integers(1, 6), data=st.data())
def test_results_keep_the_order_and_the_bound(count: int, in_flight: int, data: st.DataObject) -> None:
    """Whatever the order of the answers and the failures between, results stand in the order of the calls."""
    clock = FakeClock()
    trip = flight(batch(count, in_flight), clock, timeout_s=1e6, retries=100, budget=1e6)
    flying: list[int] = []
    while not trip.finished:
        flying += [index for index, _, _ in trip.due()]
        assert len(flying) <= in_flight
        if not flying:
            wait = trip.wait_s()
            assert wait is not None
            clock.now += wait + 1e-6
            continue
        index = flying.pop(data.draw(st.integers(0, len(flying) - 1)))
        outcome = data.draw(st.sampled_from(["answer", "answer", "down", "full"]))
        if outcome == "answer":
            trip.succeeded(index, f"reply {index}")
        else:
            trip.failed(index, Unavailable("down") if outcome == "down" else Overloaded("full"))
    assert trip.results == [f"reply {index}" for index in range(count)]


def test_retry_becomes_due_after_its_wait() -> None:
    """A failed request is sent again when its wait is over, not before."""
    clock = FakeClock()
    trip = flight(batch(1, 1), clock, backoff_s=0.5)
    assert [index for index, _, _ in trip.due()] == [0]
    trip.failed(0, Unavailable("down"))
    assert trip.wait_s() == 0.5
    assert list(trip.due()) == []
    clock.now += 0.5
    (sent,) = trip.due()
    assert sent[2] == 9.5
    trip.succeeded(0, "reply")
    assert trip.finished


def test_call_that_is_not_to_be_retried_is_not() -> None:
    """A probe reports the first failure."""
    trip = flight(batch(1, 1, retry=False), FakeClock())
    list(trip.due())
    with pytest.raises(Unavailable):
        trip.failed(0, Unavailable("down"))


def test_overload_halves_what_is_in_flight() -> None:
    """After the server's queue was full, fewer requests go out at once; answers bring them back."""
    clock = FakeClock()
    trip = flight(batch(20, 4), clock)
    assert [index for index, _, _ in trip.due()] == [0, 1, 2, 3]
    trip.failed(0, Overloaded("full", retry_delay_s=1))
    trip.succeeded(1, "reply")
    assert list(trip.due()) == []
    trip.succeeded(2, "reply")
    assert [index for index, _, _ in trip.due()] == [4]
    for index in (3, 4):
        trip.succeeded(index, "reply")
    assert len(list(trip.due())) == 3


def test_one_round_ends_with_timeout_s() -> None:
    """Requests that fit in one round, with the look-up before them, share one `timeout_s`."""
    clock = FakeClock()
    limit = TimeLimit(10.0, clock=clock)
    clock.now += 4
    trip = Flight(batch(4, 4), RetryPolicy(RetryConfig()), limit)
    assert [remaining for _, _, remaining in trip.due()] == [6.0] * 4


def test_each_round_has_timeout_s() -> None:
    """Of a call of n requests each has `timeout_s`, and all have it times the number of rounds."""
    clock = FakeClock()
    trip = flight(batch(5, 2), clock)
    assert [remaining for _, _, remaining in trip.due()] == [10.0, 10.0]
    clock.now += 9
    trip.succeeded(0, "reply")
    assert [remaining for _, _, remaining in trip.due()] == [10.0]
    clock.now += 15
    trip.succeeded(1, "reply")
    assert [remaining for _, _, remaining in trip.due()] == [6.0]
    clock.now += 6
    trip.succeeded(3, "reply")
    with pytest.raises(DeadlineExceeded, match="not answered within 10 s"):
        list(trip.due())


def test_error_counts_rows_as_the_caller_does() -> None:
    """A row that the server refused is named by its index in the caller's whole list."""
    trip = flight(batch(1, 1, offset=100), FakeClock())
    list(trip.due())
    refused = InvalidInput("files[17]: no image", violations=[Violation("files[17]", "no image")])
    with pytest.raises(InvalidInput, match=r"files\[117\]: no image") as caught:
        trip.failed(0, refused)
    assert caught.value.violations == (Violation("files[117]", "no image"),)
