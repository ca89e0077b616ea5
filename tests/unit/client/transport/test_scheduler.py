"""The scheduler alone, with a clock that the tests move."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convvae.calls.exchanges import PlannedRequest, RequestBatch
from convvae.config import RetryConfig
from convvae.errors import DeadlineExceeded, InvalidInput, Overloaded, Unavailable, Violation
from convvae.transport.retry import RetryPolicy
from convvae.transport.scheduler import GRACE_S, RequestScheduler, TimeLimit


class FakeClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def batch(count: int, in_flight: int, *, offset: int = 0, retry: bool = True) -> RequestBatch:
    return RequestBatch(
        [
            PlannedRequest("Encode", object, lambda reply: reply, offset=offset, retry=retry)
            for _ in range(count)
        ],
        in_flight,
    )


def scheduler(
    requests: RequestBatch, clock: FakeClock, *, timeout_s: float = 10.0, draw: float = 1.0, **rules: Any
) -> RequestScheduler:
    policy = RetryPolicy(RetryConfig(**rules), draw=lambda: draw)
    return RequestScheduler(requests, policy, TimeLimit(timeout_s, clock=clock))


@given(count=st.integers(1, 30), in_flight=st.integers(1, 6), data=st.data())
def test_results_keep_the_order_and_the_bound(count: int, in_flight: int, data: st.DataObject) -> None:
    """For any order of replies and failures, the results are in the order of the requests."""
    clock = FakeClock()
    sent = scheduler(batch(count, in_flight), clock, timeout_s=1e6, retries=100, budget=1e6)
    in_flight_now: list[int] = []
    while not sent.finished:
        in_flight_now += [index for index, _, _ in sent.due()]
        assert len(in_flight_now) <= in_flight
        if not in_flight_now:
            wait = sent.wait_s()
            clock.now += wait + 1e-6
            continue
        index = in_flight_now.pop(data.draw(st.integers(0, len(in_flight_now) - 1)))
        outcome = data.draw(st.sampled_from(["answer", "answer", "down", "full"]))
        if outcome == "answer":
            sent.succeeded(index, f"reply {index}")
        else:
            sent.failed(index, Unavailable("down") if outcome == "down" else Overloaded("full"))
    assert sent.results == [f"reply {index}" for index in range(count)]


def test_a_batch_ends_without_a_report_of_its_end() -> None:
    """A request whose end gRPC never reports, as after a fork, does not make the batch wait for ever."""
    clock = FakeClock()
    sent = scheduler(batch(1, 1), clock)
    assert len(list(sent.due())) == 1
    assert sent.wait_s() == 10 + GRACE_S
    clock.now += 10 + GRACE_S
    assert sent.wait_s() == 0
    with pytest.raises(DeadlineExceeded, match="not answered within 10 s"):
        list(sent.due())


def test_retry_becomes_due_after_its_wait() -> None:
    """A failed request is sent again when its wait is over, not before."""
    clock = FakeClock()
    sent = scheduler(batch(1, 1), clock, backoff_s=0.5)
    assert [index for index, _, _ in sent.due()] == [0]
    sent.failed(0, Unavailable("down"))
    assert sent.wait_s() == 0.5
    assert list(sent.due()) == []
    clock.now += 0.5
    (again,) = sent.due()
    assert again[2] == 9.5
    sent.succeeded(0, "reply")
    assert sent.finished


def test_call_that_is_not_to_be_retried_is_not() -> None:
    """A probe reports the first failure."""
    sent = scheduler(batch(1, 1, retry=False), FakeClock())
    list(sent.due())
    with pytest.raises(Unavailable):
        sent.failed(0, Unavailable("down"))


def test_overload_halves_what_is_in_flight() -> None:
    """After the server's queue was full, fewer requests are in flight. Replies raise the number again."""
    clock = FakeClock()
    sent = scheduler(batch(20, 4), clock)
    assert [index for index, _, _ in sent.due()] == [0, 1, 2, 3]
    sent.failed(0, Overloaded("full", retry_delay_s=1))
    sent.succeeded(1, "reply")
    assert list(sent.due()) == []
    sent.succeeded(2, "reply")
    assert [index for index, _, _ in sent.due()] == [4]
    for index in (3, 4):
        sent.succeeded(index, "reply")
    assert len(list(sent.due())) == 3


def test_one_round_ends_with_timeout_s() -> None:
    """Requests that fit in one round, with the look-up before them, share one `timeout_s`."""
    clock = FakeClock()
    limit = TimeLimit(10.0, clock=clock)
    clock.now += 4
    sent = RequestScheduler(batch(4, 4), RetryPolicy(RetryConfig()), limit)
    assert [remaining for _, _, remaining in sent.due()] == [6.0] * 4


def test_each_round_has_timeout_s() -> None:
    """Each request of a call has `timeout_s`, and the call has `timeout_s` times the number of rounds."""
    clock = FakeClock()
    sent = scheduler(batch(5, 2), clock)
    assert [remaining for _, _, remaining in sent.due()] == [10.0, 10.0]
    clock.now += 9
    sent.succeeded(0, "reply")
    assert [remaining for _, _, remaining in sent.due()] == [10.0]
    clock.now += 15
    sent.succeeded(1, "reply")
    assert [remaining for _, _, remaining in sent.due()] == [6.0]
    clock.now += 6
    sent.succeeded(3, "reply")
    with pytest.raises(DeadlineExceeded, match="not answered within 10 s"):
        list(sent.due())


def test_error_counts_rows_as_the_caller_does() -> None:
    """A row that the server refused is named by its index in the caller's whole list."""
    sent = scheduler(batch(1, 1, offset=100), FakeClock())
    list(sent.due())
    refused = InvalidInput("files[17]: no image", violations=[Violation("files[17]", "no image")])
    with pytest.raises(InvalidInput, match=r"files\[117\]: no image") as caught:
        sent.failed(0, refused)
    assert caught.value.violations == (Violation("files[117]", "no image"),)
