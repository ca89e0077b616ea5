"""The time limits of calls: their order, their errors, and the memory that they take."""

import threading
import time
from concurrent.futures import Future
from typing import Any

import pytest

from convvae_service.calls.running_call import RunningCall
from convvae_service.calls.time_limits import TimeLimits
from convvae_service.calls.waiting import wait
from convvae_service.errors import DeadlineExceeded


class Limited:
    """A call that waits for ever, and its outcomes."""

    def __init__(self, order: "list[Limited] | None" = None) -> None:
        self.ended = threading.Event()
        self.outcome: Any = None
        self._order = order
        self.future: Future[None] = Future()
        self.call = RunningCall(self._handle(), self._end)
        self.call.start()

    async def _handle(self) -> None:
        await wait(self.future)

    def _end(self, outcome: Any) -> None:
        self.outcome = outcome
        if self._order is not None:
            self._order.append(self)
        self.ended.set()

    def wait_for_error(self) -> str:
        """Return the message of the error that ended the call."""
        assert self.ended.wait(20)
        assert isinstance(self.outcome, DeadlineExceeded)
        return str(self.outcome)


def test_calls_end_in_the_order_of_their_limits() -> None:
    """Each call ends at its own time, whatever the order in which the limits are set."""
    now_s = 0.0
    limits = TimeLimits(clock=lambda: now_s)
    order: list[Limited] = []
    third, first, second, later = (Limited(order) for _ in range(4))
    for limited, seconds in ((third, 3000.0), (first, 1000.0), (later, 9000.0), (second, 2000.0)):
        limits.add(limited.call, seconds, lambda: DeadlineExceeded("too slow"))
    assert order == []
    now_s = 3000.0
    # The thread does not see that this clock jumps.
    limits._interrupt_overdue()
    assert third.ended.wait(20)
    assert order == [first, second, third]
    assert not later.ended.is_set()


def test_each_limit_has_its_own_error() -> None:
    """A call with two limits ends with the error of the shorter one."""
    limits = TimeLimits()
    one, other = Limited(), Limited()
    limits.add(one.call, 1000, lambda: DeadlineExceeded("the server's limit"))
    limits.add(other.call, 0.02, lambda: DeadlineExceeded("the other's limit"))
    limits.add(one.call, 0.01, lambda: DeadlineExceeded("the request's limit"))
    assert one.wait_for_error() == "the request's limit"
    assert other.wait_for_error() == "the other's limit"


def test_a_shorter_limit_that_is_added_later_is_noticed_at_once() -> None:
    """The thread that waits for a long limit wakes up for the short one."""
    limits = TimeLimits()
    long = Limited()
    limits.add(long.call, 1000, lambda: DeadlineExceeded("long"))
    for _ in range(20):
        short = Limited()
        limits.add(short.call, 0.001, lambda: DeadlineExceeded("short"))
        assert short.wait_for_error() == "short"
    assert not long.ended.is_set()


def test_a_call_that_has_ended_is_not_interrupted() -> None:
    """Its outcome stays, and no error is made for it."""
    now_s = 0.0
    limits = TimeLimits(clock=lambda: now_s)
    done, late = Limited(), Limited()
    made: list[str] = []

    def make_error() -> DeadlineExceeded:
        made.append("error")
        return DeadlineExceeded("too slow")

    limits.add(done.call, 1000, make_error)
    limits.add(late.call, 2000, lambda: DeadlineExceeded("late"))
    done.future.set_result(None)
    now_s = 2000.0
    # The thread does not see that this clock jumps.
    limits._interrupt_overdue()
    assert late.wait_for_error() == "late"
    assert done.outcome is None
    assert made == []


def test_limits_of_ended_calls_are_forgotten() -> None:
    """However many calls end in time, the limits that are kept are few; those of open calls stay."""
    limits = TimeLimits()
    open_calls = [Limited() for _ in range(50)]
    for limited in open_calls:
        limits.add(limited.call, 1000, lambda: DeadlineExceeded("open"))

    async def answer() -> None:
        return None

    most = 0
    for _ in range(100_000):
        call = RunningCall(answer(), lambda _: None)
        limits.add(call, 500, lambda: DeadlineExceeded("ended"))
        call.start()
        most = max(most, len(limits._limits))
    assert most <= 2 * 51 + 65
    assert {id(limited.call) for limited in open_calls} <= {id(limit[2]) for limit in limits._limits}


def test_calls_that_end_in_time_wake_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread sleeps while calls come and go: a wake-up costs as much as a small call."""
    wake_ups: list[None] = []
    look = TimeLimits._interrupt_overdue

    def counted(limits: TimeLimits) -> None:
        wake_ups.append(None)
        look(limits)

    monkeypatch.setattr(TimeLimits, "_interrupt_overdue", counted)
    limits = TimeLimits()
    for _ in range(300):
        limited = Limited()
        limits.add(limited.call, 1000, lambda: DeadlineExceeded("late"))
        limited.future.set_result(None)
        # A thread that was woken has time to run.
        time.sleep(0.0005)
    assert len(wake_ups) <= 3


def test_one_call_that_cannot_be_ended_does_not_spare_the_others(caplog: pytest.LogCaptureFixture) -> None:
    """If the end of a call raises, it is logged, and the next limits still hold."""

    def refuse(outcome: Any) -> None:
        raise RuntimeError("the front is closed")

    limits = TimeLimits()
    future: Future[None] = Future()

    async def handle() -> None:
        await wait(future)

    bad, good, last = RunningCall(handle(), refuse), Limited(), Limited()
    bad.start()
    limits.add(bad, 0.01, lambda: DeadlineExceeded("bad"))
    limits.add(good.call, 0.02, lambda: DeadlineExceeded("good"))
    assert good.wait_for_error() == "good"
    limits.add(last.call, 0.0, lambda: DeadlineExceeded("last"))
    assert last.wait_for_error() == "last"
    assert caplog.messages == ["internal error: a call could not be interrupted"]


def test_limits_from_many_threads() -> None:
    """Limits that are set at the same time all hold, each once."""
    limits = TimeLimits()
    found: list[Limited] = []

    def add(number: int) -> None:
        for turn in range(50):
            limited = Limited()
            limits.add(limited.call, 0.0005 * ((number * 7 + turn) % 11), lambda: DeadlineExceeded("late"))
            found.append(limited)

    threads = [threading.Thread(target=add, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [limited.wait_for_error() for limited in found] == ["late"] * 300


def test_limits_beyond_every_wait_of_a_thread_do_no_harm() -> None:
    """A caller may name a limit of 300,000 years, more than any wait; shorter limits still hold."""
    limits = TimeLimits()
    patient = Limited()
    limits.add(patient.call, 2**63 / 1e6, lambda: DeadlineExceeded("in 300,000 years"))
    for _ in range(3):
        hasty = Limited()
        limits.add(hasty.call, 0.02, lambda: DeadlineExceeded("hasty"))
        assert hasty.wait_for_error() == "hasty"
    assert not patient.ended.is_set()
