import logging

import pytest

from convvae_service.batching.batcher import RunningBatch
from convvae_service.server.watchdog import Watchdog


class Watched:
    """A watchdog of ten seconds, its clock, the lanes that it sees, and what it has reported."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.runs: list[RunningBatch] = []
        self.front_busy_since_s: float | None = None
        self.decoding_since_s: float | None = None
        self.alive: list[bool] = []
        self.changes: list[tuple[str, bool]] = []
        self.dog = Watchdog(
            timeout_s=10,
            runs=lambda: self.runs,
            front_busy_since_s=lambda: self.front_busy_since_s,
            decoding_since_s=lambda: self.decoding_since_s,
            set_alive=self._set_alive,
            on_change=lambda part, stuck: self.changes.append((part, stuck)),
            clock=lambda: self.now_s,
        )

    def _set_alive(self, alive: bool) -> None:
        self.alive.append(alive)

    def step(self, seconds: float) -> bool:
        """Let time pass and the event loop look; return whether it reports the server alive."""
        self.now_s += seconds
        self.dog.check_parts()
        return self.alive[-1]


def test_a_run_that_does_not_end_is_stuck_until_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    """Only beyond the timeout, logged once with what runs, and green again without it."""
    watched = Watched()
    watched.runs = [RunningBatch("encode", 3, 100.0), RunningBatch("decode", 5, 101.0)]
    assert [watched.step(5.0), watched.step(5.0)] == [True, True]
    with caplog.at_level(logging.WARNING):
        assert [watched.step(0.5), watched.step(1.0)] == [False, False]
        watched.runs = [RunningBatch("decode", 5, 111.0)]
        assert watched.step(0.5) is True
    assert watched.changes == [("lane", True), ("lane", False)]
    assert [record.message for record in caplog.records] == ["a lane is stuck", "a lane moves again"]
    expected = {"timeout_s": 10, "stage": "encode", "rows": 3, "seconds": 10.5}
    assert caplog.records[0].facts == expected  # type: ignore[attr-defined]


def test_many_short_runs_are_not_stuck() -> None:
    """A lane that is always busy, with one run after another, moves."""
    watched = Watched()
    for _ in range(20):
        watched.runs = [RunningBatch("encode", 64, watched.now_s)]
        assert watched.step(4.0)
    assert watched.changes == []


def test_a_front_that_starts_no_other_call_is_stuck(caplog: pytest.LogCaptureFixture) -> None:
    """A call that blocks the thread that reads is noticed, and a front that waits for calls is not stuck."""
    watched = Watched()
    watched.front_busy_since_s = 100.0
    assert watched.step(10.0)
    with caplog.at_level(logging.WARNING):
        assert not watched.step(1.0)
        watched.front_busy_since_s = None
        assert watched.step(10.0)
    assert watched.changes == [("front", True), ("front", False)]
    assert [record.message for record in caplog.records] == ["the front is stuck", "the front moves again"]
    assert caplog.records[0].facts == {"timeout_s": 10, "seconds": 11.0}  # type: ignore[attr-defined]


def test_an_image_file_that_is_decoded_too_long_is_stuck(caplog: pytest.LogCaptureFixture) -> None:
    """A decoder that does not end is noticed; one file after another is not."""
    watched = Watched()
    for since_s in (95.0, 101.0, 108.0):
        watched.decoding_since_s = since_s
        assert watched.step(5.0)
    with caplog.at_level(logging.WARNING):
        assert not watched.step(5.0)
        watched.decoding_since_s = None
        assert watched.step(1.0)
    assert watched.changes == [("worker", True), ("worker", False)]
    assert [record.message for record in caplog.records] == ["a worker is stuck", "a worker moves again"]


def test_a_loop_that_stands_still_is_seen_from_outside(caplog: pytest.LogCaptureFixture) -> None:
    """A thread reports it once, while it lasts; health is red when the loop is back, until it is in time."""
    watched = Watched()
    assert watched.step(1.0)
    watched.now_s += 10.0
    watched.dog.check_loop()
    assert watched.changes == []
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            watched.now_s += 1.0
            watched.dog.check_loop()
        assert watched.changes == [("event_loop", True)]
        assert watched.dog.stuck
        assert [watched.step(1.0), watched.step(1.0)] == [False, True]
        assert not watched.dog.stuck
    assert watched.changes == [("event_loop", True), ("event_loop", False)]
    assert [r.message for r in caplog.records] == ["the event loop is stuck", "the event loop moves again"]


@pytest.mark.parametrize(("timeout_s", "interval_s"), [(0.2, 0.05), (120, 1)])
def test_looks_are_frequent_enough(timeout_s: float, interval_s: float) -> None:
    """A stuck part is noticed soon after the timeout, whether that is short or long."""
    assert Watchdog(timeout_s=timeout_s, runs=list, set_alive=lambda _: None).interval_s == interval_s
