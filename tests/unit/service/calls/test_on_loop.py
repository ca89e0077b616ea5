"""Answers that come back to an event loop from other threads."""

import asyncio
import contextlib
import gc
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from typing import Any
from weakref import ref

import pytest
import uvloop

from convvae_service.calls.on_loop import run_on_loop
from convvae_service.calls.running_call import CallerLeft, RunningCall
from convvae_service.calls.waiting import wait

LOOPS = pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])


class Prepared:
    """Prepares a call, as the runner does: an abandoned call is not answered."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._coroutine = coroutine
        self.outcomes: list[Any] = []

    def __call__(self, *, reply: Callable[[Any], None]) -> RunningCall:
        def end(outcome: Any) -> None:
            self.outcomes.append(outcome)
            if not isinstance(outcome, CallerLeft):
                reply(outcome)

        return RunningCall(self._coroutine, end)


async def awaited(future: "Future[Any]") -> Any:
    return await wait(future)


async def settle() -> None:
    """Let every task run once."""
    await asyncio.sleep(0)


async def test_an_answer_that_is_there_at_once() -> None:
    """A call that need not wait is answered in the same thread."""

    async def handle() -> str:
        return "answer"

    assert await run_on_loop(Prepared(handle())) == "answer"


async def test_an_answer_from_another_thread() -> None:
    """The loop runs on while a call waits, and the answer arrives in the loop's own thread."""
    future: Future[str] = Future()
    task = asyncio.create_task(run_on_loop(Prepared(awaited(future))))
    await settle()
    assert not task.done()
    threading.Thread(target=future.set_result, args=("answer",)).start()
    assert await task == "answer"


async def test_a_cancelled_task_abandons_its_call() -> None:
    """The call ends with its caller, what it waits for is given up, and the cancellation goes on."""
    future: Future[str] = Future()
    prepared = Prepared(awaited(future))
    task = asyncio.create_task(run_on_loop(prepared))
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (outcome,) = prepared.outcomes
    assert isinstance(outcome, CallerLeft)
    assert future.cancelled()


async def test_a_caller_that_leaves_as_the_answer_comes() -> None:
    """An answer that finds a cancelled task is dropped, and the cancellation still goes on."""
    future: Future[str] = Future()
    prepared = Prepared(awaited(future))
    task = asyncio.create_task(run_on_loop(prepared))
    await settle()
    answering = threading.Thread(target=future.set_result, args=("answer",))
    answering.start()
    answering.join()
    # The answer is in the mailbox, and the loop has not looked yet.
    assert prepared.outcomes == ["answer"]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await settle()
    assert prepared.outcomes == ["answer"]


@LOOPS
@pytest.mark.parametrize("same_thread", [True, False])
def test_an_answer_after_the_end_of_the_loop_is_dropped(
    new_loop: Callable[[], asyncio.AbstractEventLoop], same_thread: bool
) -> None:
    """A lane that is late meets a closed loop, and goes on without an error."""
    replies: list[Callable[[Any], None]] = []

    def prepare(*, reply: Callable[[Any], None]) -> RunningCall:
        replies.append(reply)
        return RunningCall(awaited(Future()), reply)

    loop = new_loop()
    task = loop.create_task(run_on_loop(prepare))
    loop.run_until_complete(settle())
    loop.close()
    failures: list[BaseException] = []

    def answer() -> None:
        try:
            replies[0]("late")
        except BaseException as error:  # noqa: BLE001 - handed to the test's own thread
            failures.append(error)

    if same_thread:
        answer()
    else:
        thread = threading.Thread(target=answer)
        thread.start()
        thread.join()
    # The task can never end. asyncio would write this to the log.
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    assert failures == []


@LOOPS
def test_many_answers_from_many_threads(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Several loops at once: each call gets its own answer, in its own loop, and none is lost."""

    async def call_all(number: int, pool: ThreadPoolExecutor) -> list[Any]:
        async def handle(index: int) -> tuple[int, int]:
            return await wait(pool.submit(lambda: (number, index)))

        async def call(index: int) -> Any:
            answer = await run_on_loop(Prepared(handle(index)))
            assert threading.get_ident() == thread_id
            return answer

        thread_id = threading.get_ident()
        return await asyncio.gather(*(call(index) for index in range(500)))

    def serve(number: int) -> list[Any]:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            return runner.run(call_all(number, pool))

    with ThreadPoolExecutor(4) as pool, ThreadPoolExecutor(3) as fronts:
        answers = list(fronts.map(serve, range(6)))
    assert answers == [[(number, index) for index in range(500)] for number in range(6)]


async def test_answers_and_cancellations_at_the_same_moment() -> None:
    """Each task ends once, with its answer or cancelled, and each call ends once."""
    for turn in range(300):
        future: Future[str] = Future()
        prepared = Prepared(awaited(future))
        task = asyncio.create_task(run_on_loop(prepared))
        await settle()
        thread = threading.Thread(target=_answer_if_possible, args=(future,))
        thread.start()
        if turn % 2:
            await settle()
        task.cancel()
        ended: Any = (await asyncio.gather(task, return_exceptions=True))[0]
        thread.join()
        assert ended == "answer" or isinstance(ended, asyncio.CancelledError)
        (outcome,) = prepared.outcomes
        assert outcome == "answer" or isinstance(outcome, CallerLeft)


def _answer_if_possible(future: "Future[str]") -> None:
    with contextlib.suppress(InvalidStateError):
        future.set_result("answer")


def test_a_loop_that_has_ended_is_forgotten() -> None:
    """No table keeps the loops of the past."""

    async def handle() -> str:
        return "answer"

    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(run_on_loop(Prepared(handle()))) == "answer"
    loop.close()
    found = ref(loop)
    del loop
    gc.collect()
    assert found() is None
