import pytest
from hypothesis import given
from hypothesis import strategies as st

from convvae import errors
from convvae.config import RetryConfig
from convvae.errors import ConvvaeError
from convvae.transport.retry import RETRYABLE, RetryPolicy
from convvae.transport.status import CLASSES

KINDS = sorted({*CLASSES.values(), errors.Overloaded}, key=lambda kind: kind.__name__)


def policy(draw: float = 0.5, **settings: float) -> RetryPolicy:
    return RetryPolicy(RetryConfig(**settings), draw=lambda: draw)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_only_overload_and_unavailable_are_retried(kind: type[ConvvaeError]) -> None:
    """A request is retried only after a status for which a retry may help."""
    wait = policy().wait_s(kind("no", retry_delay_s=0.2), 0, 10)
    assert (wait is not None) == (kind in (errors.Overloaded, errors.Unavailable))
    assert (kind in RETRYABLE) == (wait is not None)


def test_waits_grow_up_to_the_cap() -> None:
    """The bound of the wait doubles with every retry, until `max_backoff_s`."""
    rules = policy(draw=1.0, retries=9, backoff_s=0.1, max_backoff_s=1.0)
    waits = [rules.wait_s(errors.Unavailable("down"), retry, 100) for retry in range(6)]
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


@given(draw=st.floats(0, 1, exclude_max=True), retry=st.integers(0, 5000), delay=st.floats(0, 50))
def test_wait_is_jittered_on_top_of_the_servers_delay(draw: float, retry: int, delay: float) -> None:
    """The wait is at least the server's retry delay, and at most the bound longer."""
    rules = RetryPolicy(RetryConfig(retries=10_000), draw=lambda: draw)
    wait = rules.wait_s(errors.Overloaded("full", retry_delay_s=delay), retry, 1000)
    assert wait is not None
    assert delay <= wait <= delay + 5.0


def test_wait_that_outlasts_the_call_is_not_begun() -> None:
    """If the remaining time is shorter than the wait, the error is raised at once and no token is spent."""
    rules = policy()
    assert rules.wait_s(errors.Overloaded("full", retry_delay_s=3), 0, 2.9) is None
    assert rules.tokens == RetryConfig().budget


def test_retries_end() -> None:
    """After `retries` retries the error is final; 0 turns retries off."""
    error = errors.Unavailable("down")
    assert policy(retries=2).wait_s(error, 1, 10) is not None
    assert policy(retries=2).wait_s(error, 2, 10) is None
    assert policy(retries=0).wait_s(error, 0, 10) is None


def test_budget_is_spent_and_refilled() -> None:
    """Calls share a budget: each retry takes a token, each answer returns a part, up to the maximum."""
    rules = policy(budget=2, refill=0.5)
    error = errors.Unavailable("down")
    assert [rules.wait_s(error, 0, 10) is not None for _ in range(4)] == [True, True, False, False]
    rules.answered()
    assert rules.wait_s(error, 0, 10) is None
    rules.answered()
    assert rules.wait_s(error, 0, 10) is not None
    for _ in range(10):
        rules.answered()
    assert rules.tokens == 2


@pytest.mark.parametrize(
    "settings",
    [
        {"retries": -1},
        {"backoff_s": -1},
        {"backoff_s": float("nan")},
        {"max_backoff_s": float("inf")},
        {"multiplier": 0.5},
        {"budget": -1},
        {"refill": -1},
    ],
)
def test_rules_out_of_range_are_refused(settings: dict[str, float]) -> None:
    """An invalid rule is refused when it is created."""
    with pytest.raises(ValueError, match=f"{next(iter(settings))} is"):
        RetryConfig(**settings)  # type: ignore[arg-type]


def test_a_server_that_stops_costs_no_token() -> None:
    """It refuses every call for a moment, and another server may answer. One that is gone costs a token."""
    rules = RetryPolicy(RetryConfig(budget=1), draw=lambda: 0.5)
    stopping = errors.Unavailable("the server is stopping", code="UNAVAILABLE", request_id="id-1")
    assert [rules.wait_s(stopping, retries, 30) is None for retries in range(6)] == [False] * 5 + [True]
    assert rules.tokens == 1
    gone = errors.Unavailable("connection refused", code="UNAVAILABLE")
    assert rules.wait_s(gone, 0, 30) is not None
    assert rules.wait_s(gone, 0, 30) is None
    assert rules.wait_s(stopping, 0, 30) is not None
