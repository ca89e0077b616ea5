"""Calls whose results and interruptions come at the same moment."""

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from typing import Any

import pytest

from convvae_service.calls.running_call import CallerLeft
from convvae_service.calls.waiting import wait
from convvae_service.errors import DeadlineExceeded
from support.call_ends import Ends

TOO_SLOW = DeadlineExceeded("too slow")


def settle(future: "Future[Any]", result: Any) -> None:
    """Set a result, unless the future is cancelled."""
    with contextlib.suppress(InvalidStateError):
        future.set_result(result)


class Racers:
    """Threads that each act once per round, all at the same moment."""

    def __init__(self, *acts: Callable[["Round"], object]) -> None:
        self._barrier = threading.Barrier(len(acts) + 1)
        self._round: Round | None = None
        self._threads = [threading.Thread(target=self._race, args=(act,)) for act in acts]
        for thread in self._threads:
            thread.start()

    def run(self, current: "Round | None") -> None:
        """Run one round, and return when all have acted; None ends the threads."""
        self._round = current
        self._barrier.wait(20)
        self._barrier.wait(20)

    def _race(self, act: Callable[["Round"], object]) -> None:
        while True:
            self._barrier.wait(20)
            current = self._round
            if current is not None:
                act(current)
            self._barrier.wait(20)
            if current is None:
                return


class Round:
    """A call that waits for two results."""

    def __init__(self) -> None:
        self.futures: list[Future[int]] = [Future(), Future()]
        self.cleaned = 0
        self.ends = Ends(self._handle())

    async def _handle(self) -> int:
        try:
            first = await wait(self.futures[0])
            return first + await wait(self.futures[1])
        finally:
            self.cleaned += 1


@pytest.mark.parametrize("starts_first", [True, False])
def test_results_and_interruptions_at_the_same_moment_end_a_call_once(starts_first: bool) -> None:
    """Whichever comes first: one outcome, one cleanup, and no call is left waiting."""
    acts: list[Callable[[Round], object]] = [
        lambda current: settle(current.futures[0], 1),
        lambda current: settle(current.futures[1], 2),
        lambda current: current.ends.call.interrupt(TOO_SLOW),
        lambda current: current.ends.call.abandon(),
    ]
    if not starts_first:
        acts.append(lambda current: current.ends.start())
    racers = Racers(*acts)
    seen = set()
    for _ in range(2000):
        current = Round()
        if starts_first:
            current.ends.start()
        racers.run(current)
        outcome = current.ends.only
        assert outcome == 3 or outcome is TOO_SLOW or isinstance(outcome, CallerLeft)
        # The handler of a call that was interrupted before its start has nothing to clean.
        assert current.cleaned <= 1
        assert current.cleaned == 1 or outcome != 3
        seen.add(type(outcome))
    racers.run(None)
    assert len(seen) >= 2
