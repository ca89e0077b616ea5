"""The fault and load runs with small numbers: that they run and tell, not how large their figures are."""

import random
from typing import Any

import pytest

from fault import cancel_storm, fairness, hasty_storm, mutations, one_bad_call, overload, proxied, rolling
from fault.mutate import NATIVE, OPEN_INFERENCE, mutated
from support.load import Report


def unmet(result: dict[str, Any]) -> set[str]:
    """Return the targets that a run says are not met."""
    return {target for target, met in result["met"].items() if not met}


def test_a_small_storm(front: str) -> None:
    """A client that waits loses nothing beside others that give up."""
    result = cancel_storm.measure(front, calls=200, settle_s=1.0)
    assert unmet(result) <= {"memory grows under 1 MiB in the second half"}
    assert result["storm_codes"] == {"DEADLINE_EXCEEDED": 200}


def test_a_small_hasty_storm(front: str) -> None:
    """A patient caller of single rows loses nothing beside large calls that give up almost at once."""
    result = hasty_storm.measure(front, calls=400)
    assert unmet(result) <= {"the patient caller gets on"}
    assert result["patient_caller"]["calls"] > 0
    assert result["storm_codes"]["DEADLINE_EXCEEDED"] > 0


@pytest.mark.slow
def test_a_small_roll(front: str) -> None:
    """Every call is answered although both replicas are replaced."""
    result = rolling.measure(front, least_calls=300, replacements=1, compare=False)
    assert not unmet(result)
    assert all(result[name]["calls"] >= 300 for name in ("sigterm", "sigkill"))


@pytest.mark.slow
def test_a_small_roll_behind_proxies(front: str) -> None:
    """Every call through a proxy is answered although both replicas are replaced."""
    result = proxied.measure(front, least_calls=300, replacements=1)
    assert not unmet(result)
    if not result["met"]:
        pytest.skip("no proxy is installed")


def test_a_short_overload(front: str) -> None:
    """Calls are refused with advice when and to come back."""
    result = overload.measure(front, seconds=1.0, capacity_seconds=1.0)
    assert result["codes"]["RESOURCE_EXHAUSTED"] > 0
    assert result["codes"]["OK"] > 0
    assert result["refused_without_retry_info"] == 0


def test_some_mutations(front: str) -> None:
    """Requests of both protocols are answered, none by a fault of the server."""
    result = mutations.measure(front, requests=800, settle_s=0.0)
    assert unmet(result) <= {"memory grows under 1 MiB in the second half"}
    assert {"OK", "INVALID_ARGUMENT", "NOT_FOUND"} <= result["codes"].keys()


def test_one_bad_call(front: str) -> None:
    """It fails alone."""
    assert not unmet(one_bad_call.measure(front, rounds=2))


def test_fairness(front: str) -> None:
    """Single rows are answered beside a bulk client."""
    result = fairness.measure(front, seconds=1.0)
    # Where other tests take the processor the engine is not what is shared.
    assert unmet(result) <= {"a long call gets on beside a crowd"}
    assert result["long_calls_beside_a_crowd"]["calls"] > 0
    assert result["bulk"]["rows_per_s"] > 0


@pytest.mark.parametrize("methods", [NATIVE, OPEN_INFERENCE])
def test_mutations_are_many_and_the_same_every_time(methods: dict[str, Any]) -> None:
    """A seed gives the same requests, all methods among them, most of them changed."""
    draws = (random.Random(1), random.Random(1))
    made, again = ([mutated(draw, methods) for _ in range(500)] for draw in draws)
    assert made == again
    assert {name for name, _ in made} == methods.keys()
    originals = {message.SerializeToString() for messages in methods.values() for message in messages}
    assert sum(data in originals for _, data in made) < 150


def test_full_speed_counts_whole_windows() -> None:
    """Full speed is reached at the end of the first window with enough answers."""
    answers = [100 + 0.5 + 0.01 * index for index in range(200)]
    report = Report(answered_s=answers, began_s=100.0, ended_s=103.0)
    assert overload.seconds_to_full_speed(report, 100.0) == pytest.approx(0.75, abs=0.05)
    assert overload.seconds_to_full_speed(report, 200.0) is None
