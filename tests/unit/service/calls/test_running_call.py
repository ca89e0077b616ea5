"""Calls that run in steps: the thread of each step, and interruptions at every moment."""

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any

import pytest

from convvae_service.calls.running_call import CallerLeft, RunningCall
from convvae_service.calls.waiting import wait
from convvae_service.errors import DeadlineExceeded
from support.call_ends import Ends

TOO_SLOW = DeadlineExceeded("too slow")


def in_thread(act: Callable[[], object], name: str = "other") -> None:
    """Run a function in another thread, and wait for its end."""
    thread = threading.Thread(target=act, name=name)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()


async def awaited(future: "Future[Any]") -> Any:
    return await wait(future)


def test_each_step_runs_in_the_thread_of_its_result() -> None:
    """The first step runs in the thread that starts the call, the others where the results arrive."""
    futures: list[Future[int]] = [Future(), Future()]
    threads: list[str] = []

    async def handle() -> int:
        total = 0
        for future in futures:
            threads.append(threading.current_thread().name)
            total += await wait(future)
        threads.append(threading.current_thread().name)
        return total

    ends = Ends(handle())
    in_thread(ends.start, "front")
    assert not ends.call.ended
    in_thread(lambda: futures[0].set_result(1), "lane-0")
    assert ends.outcomes == []
    in_thread(lambda: futures[1].set_result(2), "lane-1")
    assert ends.only == 3
    assert threads == ["front", "lane-0", "lane-1"]


def test_results_that_are_there_are_taken_at_once() -> None:
    """A call that need not wait has ended when `start` returns."""
    future: Future[str] = Future()
    future.set_result("here")
    ends = Ends(awaited(future))
    ends.start()
    assert ends.only == "here"


def test_an_error_is_raised_where_the_call_waits() -> None:
    """A handler sees the error of what it waits for, and may handle it."""
    future: Future[str] = Future()

    async def handle() -> str:
        try:
            return await wait(future)
        except KeyError:
            return "handled"

    ends = Ends(handle())
    ends.start()
    future.set_exception(KeyError("missing"))
    assert ends.only == "handled"


@pytest.mark.parametrize("error", [TOO_SLOW, KeyError("a fault")])
def test_an_error_of_the_handler_is_the_outcome(error: Exception) -> None:
    """The exception itself is handed on, before and after a wait."""
    future: Future[None] = Future()

    async def handle(wait_first: bool) -> None:
        if wait_first:
            await wait(future)
        raise error

    early, late = Ends(handle(False)), Ends(handle(True))
    early.start()
    late.start()
    future.set_result(None)
    assert early.only is error
    assert late.only is error


def test_an_interruption_while_the_call_waits_ends_it_at_once() -> None:
    """The error is raised at the wait, in the thread that interrupts; the future is cancelled."""
    future: Future[str] = Future()
    cleaned: list[str] = []

    async def handle() -> str:
        try:
            return await wait(future)
        finally:
            cleaned.append(threading.current_thread().name)

    ends = Ends(handle())
    ends.start()
    in_thread(lambda: ends.call.interrupt(TOO_SLOW), "time limits")
    assert ends.only is TOO_SLOW
    assert future.cancelled()
    assert cleaned == ["time limits"]


def test_an_interruption_while_the_call_runs_waits_for_its_next_wait() -> None:
    """A step is never cut off: the error is raised at the next wait, whose future is cancelled."""
    runs, go_on = threading.Event(), threading.Event()
    future: Future[str] = Future()
    steps: list[str] = []

    async def handle() -> str:
        runs.set()
        assert go_on.wait(20)
        steps.append("computed")
        try:
            return await wait(future)
        finally:
            steps.append("cleaned")

    ends = Ends(handle())
    starter = threading.Thread(target=ends.start)
    starter.start()
    assert runs.wait(20)
    ends.call.interrupt(TOO_SLOW)
    assert not ends.call.ended
    go_on.set()
    starter.join(20)
    assert ends.only is TOO_SLOW
    assert steps == ["computed", "cleaned"]
    assert future.cancelled()


def test_a_call_that_ends_without_another_wait_is_not_interrupted() -> None:
    """An answer that is nearly ready is given."""
    ends: Ends

    async def handle() -> str:
        ends.call.abandon()
        return "answer"

    ends = Ends(handle())
    ends.start()
    assert ends.only == "answer"


def test_an_interruption_before_the_start_keeps_the_handler_from_running() -> None:
    """No line of the handler runs; the call ends when it is started."""
    steps: list[str] = []

    async def handle() -> None:
        steps.append("ran")

    ends = Ends(handle())
    ends.call.abandon()
    assert ends.outcomes == []
    ends.start()
    assert isinstance(ends.only, CallerLeft)
    assert steps == []


def test_an_interruption_after_the_end_has_no_effect() -> None:
    """The outcome stays, and no one is called again."""
    future: Future[str] = Future()
    ends = Ends(awaited(future))
    ends.start()
    future.set_result("answer")
    ends.call.interrupt(TOO_SLOW)
    ends.call.abandon()
    assert ends.only == "answer"


def test_the_first_interruption_counts() -> None:
    """Only the first of a time limit and a caller who leaves is seen, also while the call cleans up."""
    future: Future[str] = Future()
    cleanup: Future[str] = Future()

    async def handle() -> str:
        try:
            return await wait(future)
        finally:
            ends.call.abandon()
            # A wait in a cleanup is interrupted by the same error.
            await wait(cleanup)

    ends = Ends(handle())
    ends.start()
    ends.call.interrupt(TOO_SLOW)
    assert ends.only is TOO_SLOW
    assert cleanup.cancelled()


def test_a_handler_cannot_hide_that_the_caller_left() -> None:
    """`except Exception` does not catch it, so that no work is done for nobody."""
    future: Future[str] = Future()

    async def handle() -> str:
        try:
            return await wait(future)
        except Exception:  # noqa: BLE001 - a handler that catches too much
            return "hidden"

    ends = Ends(handle())
    ends.start()
    ends.call.abandon()
    assert isinstance(ends.only, CallerLeft)


def test_a_late_result_is_ignored() -> None:
    """A result that cannot be stopped, such as a run in progress, finds a call that has ended."""

    class Stubborn(Future[str]):
        def cancel(self) -> bool:
            return False

    future = Stubborn()
    ends = Ends(awaited(future))
    ends.start()
    ends.call.abandon()
    future.set_result("late")
    assert isinstance(ends.only, CallerLeft)


def test_a_result_that_is_given_up_elsewhere_is_an_error_of_the_call() -> None:
    """If an executor is shut down, the call ends with the cancellation of its future."""
    future: Future[str] = Future()
    ends = Ends(awaited(future))
    ends.start()
    future.cancel()
    assert isinstance(ends.only, CancelledError)


def test_an_answer_that_cannot_be_delivered_is_not_given_twice() -> None:
    """If `on_end` raises, it is not called again, although the call ended inside `add_done_callback`."""
    outcomes: list[Any] = []

    def refuse(outcome: Any) -> None:
        outcomes.append(outcome)
        raise RuntimeError("the front is closed")

    class Done:
        """A result that is there already, whose callback may raise, as in the batcher."""

        def add_done_callback(self, callback: Callable[[Any], Any]) -> None:
            callback(self)

        def cancel(self) -> bool:
            return False

        def result(self) -> str:
            return "answer"

    async def handle() -> str:
        return await wait(Done())

    call = RunningCall(handle(), refuse)
    with pytest.raises(RuntimeError, match="the front is closed"):
        call.start()
    assert outcomes == ["answer"]
    assert call.ended
