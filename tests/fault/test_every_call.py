"""Calls of every kind that are given up, or that the end of the server meets in any of their steps."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from fault.slow_server import SlowServer
from support.every_call import STREAM, EveryCall, answer_to, end_of, every_call, publish
from support.observed import ObservedServer, observed
from support.waiting import wait_until
from support.wire import TIMEOUT_S

GIVEN_UP = {grpc.StatusCode.OK, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}
CUT = {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
# Requests or replies of a round have 100 kB each, together 100 MB.
MAX_GROWTH_KIB = 25 * 1024
# Two lanes, and several batches for each call.
LANES = ("--lanes", "2", "--threads", "1", "--max-batch-rows", "32")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("every-call")
    publish(folder)
    return folder


def give_up(calls: EveryCall, *, seed: int, rounds: int) -> set[grpc.StatusCode]:
    """Make calls of each kind that expire or are cancelled at a random time, and return how they ended."""
    draw = np.random.default_rng(seed)
    codes = set()
    for _ in range(rounds):
        made = [make(timeout=draw.uniform(0.001, 0.1)) for make in calls.by_kind.values()]
        for call in draw.permutation(np.array([*made, None], object))[: len(made) // 2]:
            time.sleep(draw.uniform(0, 0.005))
            if call is not None:
                call.cancel()
        codes |= {call.code() for call in made}
    return codes


@pytest.mark.slow
def test_calls_of_every_kind_that_are_given_up_leave_nothing(root: Path, front: str) -> None:
    """Nothing stays pending, no memory is kept, the log has no error, and later answers are right."""
    with (
        observed(ObservedServer, root, "--front", front, *LANES) as server,
        every_call(server.target) as calls,
    ):
        before = calls.answers(TIMEOUT_S)
        codes = give_up(calls, seed=0, rounds=60)
        assert not any(server.wait_idle().values())
        half_kib = server.resident_kib()
        codes |= give_up(calls, seed=1, rounds=120)
        assert not any(server.wait_idle().values())
        assert server.resident_kib() - half_kib < MAX_GROWTH_KIB
        assert calls.answers(TIMEOUT_S) == before
        assert codes <= GIVEN_UP
        assert len(codes) > 1
        assert server.stop() == 0
        assert not [line for line in server.lines if line["level"] in ("error", "warning")]
        assert not server.noise


@contextmanager
def calls_in_every_step(
    root: Path, *flags: str
) -> Iterator[tuple[ObservedServer, dict[tuple[str, int], Any]]]:
    """A server whose engine takes 40 ms for a batch, with two calls of each kind, most of them in flight."""
    with (
        observed(SlowServer, root, *LANES, *flags, environ={"RUN_S": "0.04"}) as server,
        every_call(server.target) as calls,
    ):
        made = {
            (kind, number): make(timeout=TIMEOUT_S)
            for number in range(2)
            for kind, make in calls.by_kind.items()
        }
        wait_until(lambda: server.calls_in_flight() > len(made) / 2)
        yield server, made


def test_a_drain_answers_calls_in_every_step(root: Path, front: str) -> None:
    """A call that is decoded, waits, runs or is written when the signal comes is answered in the grace."""
    flags = ("--front", front, "--drain-delay-s", "0.5", "--grace-s", "30")
    with calls_in_every_step(root, *flags) as (server, made):
        server.send(signal.SIGTERM)
        for (kind, _), call in made.items():
            if kind != STREAM:
                assert answer_to(kind, call)
        # The requests of a stream that were read are answered.
        assert all(next(call) for (kind, _), call in made.items() if kind == STREAM)
        assert server.wait() == 0
        assert not server.noise
        assert not [line for line in server.lines if line["level"] == "error"]


@pytest.mark.parametrize(("flags", "signals", "code"), [(("--grace-s", "0.1"), 1, 0), ((), 2, 1)])
def test_the_end_of_the_grace_or_a_second_signal_cuts_calls_in_every_step(
    root: Path, front: str, flags: tuple[str, ...], signals: int, code: int
) -> None:
    """Calls end at once, as a server's that goes away, and the process with the code for it."""
    with calls_in_every_step(root, "--front", front, *flags) as (server, made):
        started_s = time.monotonic()
        for _ in range(signals):
            server.send(signal.SIGTERM)
            server.wait_for("draining")
        assert server.wait() == code
        assert time.monotonic() - started_s < 5
        codes = {end_of(kind, call) for (kind, _), call in made.items()}
        assert codes <= CUT
        assert codes != {grpc.StatusCode.OK}
        assert not server.noise
