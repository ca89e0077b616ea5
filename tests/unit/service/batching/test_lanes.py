"""Several lanes and many callers at once: every call ends once, and nothing stays behind."""

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import closing
from functools import partial
from queue import SimpleQueue
from typing import Any
from weakref import ref

import numpy as np
import pytest

from convvae_service.batching import batcher as batcher_module
from convvae_service.batching.batcher import Batcher
from convvae_service.batching.pending_call import PendingCall
from convvae_service.batching.report import BatchReport
from convvae_service.engine.stages import Rows, Stage
from support.waiting import TIMEOUT_S, wait_until


def double(rows: Rows) -> Rows:
    return (rows[0] * 2,)


def fail(rows: Rows) -> Rows:
    raise ValueError("poison")


def values(*numbers: int) -> Rows:
    return (np.array(numbers, np.int64),)


def new_batcher(lanes: int, **more: Any) -> Batcher:
    return Batcher(lanes=lanes, max_batch_rows=4, max_queued_rows=10**6, **more)


@pytest.fixture
def batcher() -> Iterator[Batcher]:
    """A batcher of three lanes."""
    with closing(new_batcher(3)) as batcher:
        yield batcher


def end_of(call: PendingCall) -> Callable[[], Rows]:
    """Return a function that waits for a call, and then returns its results or raises its error."""
    ended = threading.Event()
    call.add_done_callback(lambda _: ended.set())

    def wait() -> Rows:
        assert ended.wait(TIMEOUT_S)
        return call.result()

    return wait


class Gate:
    """A stage whose runs wait until the test opens it; `runs` counts those that have begun."""

    def __init__(self) -> None:
        self.stage = Stage("gated", self.run)
        self.runs = threading.Semaphore(0)
        self.rows: list[int] = []
        self._open = threading.Event()

    def run(self, rows: Rows) -> Rows:
        self.rows += rows[0].tolist()
        self.runs.release()
        assert self._open.wait(TIMEOUT_S)
        return double(rows)

    def open(self) -> None:
        self._open.set()

    def wait_for_runs(self, count: int) -> None:
        for _ in range(count):
            assert self.runs.acquire(timeout=TIMEOUT_S)


def test_one_large_call_runs_on_all_lanes(batcher: Batcher) -> None:
    """The first call of a new batcher has rows for three batches, and they run side by side."""
    gate = Gate()
    call = end_of(batcher.submit(gate.stage, values(*range(12))))
    gate.wait_for_runs(3)
    assert len(batcher.runs) == 3
    gate.open()
    assert call()[0].tolist() == list(range(0, 24, 2))


def test_calls_that_arrive_together_run_on_different_lanes(batcher: Batcher) -> None:
    """Calls of three stages do not wait for each other when all lanes are idle."""
    end_of(batcher.submit(Stage("double", double), values(1)))()
    wait_until(lambda: batcher._idle == 3)
    gates = [Gate() for _ in range(3)]
    calls = [end_of(batcher.submit(gate.stage, values(7))) for gate in gates]
    for gate in gates:
        gate.wait_for_runs(1)
    for gate in gates:
        gate.open()
    assert [call()[0].tolist() for call in calls] == [[14]] * 3


def test_no_more_lanes_than_allowed(batcher: Batcher) -> None:
    """A hundred calls at once run in three threads, which live on for later calls."""
    threads: set[int] = set()

    def noted(rows: Rows) -> Rows:
        threads.add(threading.get_ident())
        return double(rows)

    stage = Stage("noted", noted)
    for _ in range(3):
        for call in [end_of(batcher.submit(stage, values(number))) for number in range(100)]:
            call()
    assert 1 <= len(threads) <= 3


def test_the_callback_runs_in_the_lane_that_has_the_last_rows(batcher: Batcher) -> None:
    """The results are handed over without a change of thread; a callback that comes late runs at once."""
    gate = Gate()
    threads: list[str] = []
    call = batcher.submit(gate.stage, values(1))
    call.add_done_callback(lambda _: threads.append(threading.current_thread().name))
    gate.open()
    wait_until(lambda: bool(threads))
    assert threads[0].startswith("lane-")
    call.add_done_callback(lambda _: threads.append(threading.current_thread().name))
    assert threads[1] == threading.current_thread().name


def test_a_call_that_is_done_keeps_no_inputs(batcher: Batcher) -> None:
    """The rows are freed at the end, answered or cancelled, even if somebody keeps the call."""
    gate = Gate()
    busy = [end_of(batcher.submit(gate.stage, values(*range(4)))) for _ in range(3)]
    gate.wait_for_runs(3)
    inputs: list[ref[Any]] = []

    def submit() -> PendingCall:
        rows = values(1, 2)
        inputs.append(ref(rows[0]))
        return batcher.submit(gate.stage, rows)

    answered, cancelled = submit(), submit()
    cancelled.cancel()
    assert inputs[1]() is None
    gate.open()
    for end in (*busy, end_of(answered)):
        end()
    wait_until(lambda: inputs[0]() is None)
    assert answered.result()[0].tolist() == [2, 4]


@pytest.mark.parametrize("run", [double, fail])
def test_a_callback_that_raises_harms_no_other_call(run: Callable[[Rows], Rows]) -> None:
    """The calls of the same batch, answered or failed, still end; so do those of the next batches."""
    with closing(new_batcher(1)) as batcher:
        gate, ends = Gate(), Counter[int]()
        first = end_of(batcher.submit(gate.stage, values(0)))
        gate.wait_for_runs(1)

        def end(number: int, call: PendingCall) -> None:
            ends[number] += 1
            if number == 0:
                raise RuntimeError("a callback that raises")

        stage = Stage("batch", run)
        for number in range(6):
            batcher.submit(stage, values(number)).add_done_callback(partial(end, number))
        gate.open()
        first()
        wait_until(lambda: len(ends) == 6)
        assert end_of(batcher.submit(Stage("double", double), values(4)))()[0].tolist() == [8]
    assert set(ends.values()) == {1}


def test_a_report_that_fails_costs_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    """If `on_batch` or an observer raises, the log says it, and calls have their results all the same."""

    def refuse(report: BatchReport) -> None:
        raise RuntimeError("no metrics")

    def refuse_slice(report: object) -> None:
        raise RuntimeError("no trace")

    for more, observe in (({"on_batch": refuse}, None), ({}, refuse_slice)):
        with closing(new_batcher(1, **more)) as batcher:
            stage = Stage("double", double)
            for number in range(3):
                call = end_of(batcher.submit(stage, values(number), observe))
                assert call()[0].tolist() == [2 * number]
            wait_until(lambda: batcher.runs == ())
    assert caplog.messages == ["internal error: a batch was not reported"] * 6


def test_a_lane_that_is_stuck_in_an_answer_is_seen() -> None:
    """A batch counts as running until its last callback has returned: the watchdog looks at it."""
    stuck = threading.Event()
    with closing(new_batcher(1)) as batcher:
        call = batcher.submit(Stage("double", double), values(1))

        def stay(_: PendingCall) -> None:
            assert stuck.wait(TIMEOUT_S)

        call.add_done_callback(stay)
        wait_until(lambda: call.done)
        assert [run.stage for run in batcher.runs] == ["double"]
        stuck.set()
        wait_until(lambda: batcher.runs == ())


def test_a_fault_of_the_batcher_ends_neither_its_calls_nor_the_lane(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An error outside of the graph, such as a lack of memory, fails the batch; the lane goes on."""

    def no_memory(*_: object) -> Any:
        raise MemoryError("no room")

    with closing(new_batcher(1)) as batcher:
        with monkeypatch.context() as patch:
            patch.setattr(batcher_module, "run_batch", no_memory)
            failed = end_of(batcher.submit(Stage("double", double), values(1)))
            with pytest.raises(MemoryError, match="no room"):
                failed()
        with monkeypatch.context() as patch:
            patch.setattr(batcher_module, "share", no_memory)
            late = end_of(batcher.submit(Stage("double", double), values(2)))
            wait_until(lambda: len(caplog.messages) >= 2)
        assert late()[0].tolist() == [4]
        wait_until(lambda: batcher.runs == ())
    assert set(caplog.messages) == {"internal error: a batch failed outside of its graph"}


def test_a_thread_that_cannot_start_is_no_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the system allows no thread, the start says so, and a later start makes up for it."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with closing(new_batcher(2)) as batcher:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                batcher.start()
        assert end_of(batcher.submit(Stage("double", double), values(3)))()[0].tolist() == [6]


def test_close_cancels_what_waits_and_finishes_what_runs(batcher: Batcher) -> None:
    """A closed batcher leaves no caller waiting: not those in the queue, nor one that comes later."""
    gate = Gate()
    running = [end_of(batcher.submit(gate.stage, values(*range(4)))) for _ in range(3)]
    gate.wait_for_runs(3)
    waiting = [end_of(batcher.submit(gate.stage, values(9))) for _ in range(5)]
    closing_now = threading.Thread(target=batcher.close)
    closing_now.start()
    for call in waiting:
        with pytest.raises(CancelledError):
            call()
    late = end_of(batcher.submit(gate.stage, values(9)))
    with pytest.raises(CancelledError):
        late()
    gate.open()
    closing_now.join(TIMEOUT_S)
    assert not closing_now.is_alive()
    assert [call()[0].tolist() for call in running] == [[0, 2, 4, 6]] * 3
    assert 9 not in gate.rows
    assert not batcher._queues
    assert batcher.runs == ()


def test_calls_cancelled_from_many_threads_are_not_computed(batcher: Batcher) -> None:
    """Exactly the calls that nobody gave up are computed, and each call is given up once."""
    gate = Gate()
    busy = [end_of(batcher.submit(gate.stage, values(*range(-4, 0)))) for _ in range(3)]
    gate.wait_for_runs(3)
    calls = [batcher.submit(gate.stage, values(number)) for number in range(600)]
    leavers = random.Random(0).sample(range(600), 400)
    cancelled: SimpleQueue[int] = SimpleQueue()

    def leave(numbers: list[int]) -> None:
        for number in numbers:
            if calls[number].cancel():
                cancelled.put(number)

    # Each call is cancelled by two threads.
    threads = [threading.Thread(target=leave, args=(leavers[part::4],)) for part in (0, 1, 2, 3) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gate.open()
    stayers = sorted(set(range(600)) - set(leavers))
    for number in stayers:
        assert end_of(calls[number])()[0].tolist() == [2 * number]
    for call in busy:
        call()
    assert sorted(number for number in gate.rows if number >= 0) == stayers
    assert sorted(cancelled.get() for _ in range(cancelled.qsize())) == sorted(leavers)


class Caller(threading.Thread):
    """Makes calls one after another, and hands most of them to the threads that cancel."""

    def __init__(self, batcher: Batcher, stages: list[Stage], seed: int, cancels: SimpleQueue[Any]) -> None:
        super().__init__()
        self.outcomes: Counter[str] = Counter()
        self._batcher = batcher
        self._stages = stages
        self._random = random.Random(seed)
        self._cancels = cancels

    def run(self) -> None:
        for _ in range(250):
            numbers = [self._random.randrange(1000) for _ in range(self._random.randint(1, 9))]
            with self._batcher.admit(rows=len(numbers)):
                self.outcomes[self._call(numbers)] += 1

    def _call(self, numbers: list[int]) -> str:
        ends: SimpleQueue[PendingCall] = SimpleQueue()
        call = self._batcher.submit(self._random.choice(self._stages), values(*numbers))
        if self._random.random() < 0.5:
            self._cancels.put(call)
        call.add_done_callback(ends.put)
        if self._random.random() < 0.2:
            call.cancel()
        assert ends.get(timeout=TIMEOUT_S) is call
        try:
            (doubled,) = call.result()
        except CancelledError:
            return "cancelled"
        except ValueError:
            return "failed"
        assert doubled.tolist() == [2 * number for number in numbers]
        assert not call.cancel()
        assert ends.empty()
        return "answered"


def test_a_storm_of_calls_and_cancellations_loses_nothing(batcher: Batcher) -> None:
    """Each call ends exactly once with its own results, and all room in the queue is given back."""

    def sometimes(rows: Rows) -> Rows:
        return fail(rows) if (rows[0] == 13).any() else double(rows)

    stages = [Stage("a", double), Stage("b", double), Stage("c", sometimes)]
    cancels: SimpleQueue[Any] = SimpleQueue()

    def cancel_all() -> None:
        while (call := cancels.get(timeout=TIMEOUT_S)) is not None:
            call.cancel()

    cancellers = [threading.Thread(target=cancel_all) for _ in range(2)]
    callers = [Caller(batcher, stages, seed, cancels) for seed in range(6)]
    for thread in (*cancellers, *callers):
        thread.start()
    for caller in callers:
        caller.join()
    for _ in cancellers:
        cancels.put(None)
    for canceller in cancellers:
        canceller.join()
    outcomes = sum((caller.outcomes for caller in callers), Counter[str]())
    assert outcomes.total() == 6 * 250
    assert min(outcomes["answered"], outcomes["cancelled"]) > 50
    assert batcher.queued_rows == 0
    assert not batcher._queues
    wait_until(lambda: batcher.runs == ())
