import asyncio
import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import numpy as np
import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from convvae_service.batching import batcher as batcher_module
from convvae_service.batching.batcher import Batcher
from convvae_service.batching.report import BatchReport
from convvae_service.engine.stages import Rows, Stage
from convvae_service.errors import Overloaded

MakeBatcher = Callable[..., Batcher]


class Recorder:
    """A stage that doubles its rows, keeps the batches it saw, and waits at a gate that the test opens."""

    def __init__(self, *, gated: bool = False, poison: int | None = None) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.poison = poison
        if not gated:
            self.gate.set()
        self.stage = Stage("double", self.run)

    def run(self, rows: Rows) -> Rows:
        self.batches.append([int(value) for value in rows[0]])
        assert self.gate.wait(10)
        if self.poison is not None and (rows[0] == self.poison).any():
            raise ValueError("poison")
        return (rows[0] * 2, rows[0].astype(np.float32)[:, None] + 0.5)


def values(*numbers: int) -> Rows:
    return (np.array(numbers, np.int64),)


def new_batcher(**changes: Any) -> Batcher:
    """Return a batcher of one lane and batches of four rows, but for `changes`."""
    limits = {"lanes": 1, "max_batch_rows": 4, "max_queued_rows": 100, "max_queued_bytes": 1000}
    return Batcher(**{**limits, **changes})


@pytest.fixture
def make() -> Iterator[MakeBatcher]:
    """Return `new_batcher`; what it has made is closed after the test."""
    with ExitStack() as stack:
        yield lambda **changes: stack.enter_context(closing(new_batcher(**changes)))


async def settle() -> None:
    """Let every task run once: a new call arrives, and a cancelled one leaves."""
    await asyncio.sleep(0)


async def test_an_idle_lane_takes_a_call_at_once(make: MakeBatcher) -> None:
    """A single row does not wait for a batch to fill."""
    batcher, recorder = make(), Recorder()
    doubled, plus = await batcher.run(recorder.stage, values(3))
    assert (doubled.tolist(), plus.tolist()) == ([6], [[3.5]])
    assert recorder.batches == [[3]]


async def test_calls_that_arrive_while_the_lane_is_busy_share_a_batch(make: MakeBatcher) -> None:
    """Three calls behind a running batch are one batch, and each gets its own rows back."""
    batcher, recorder = make(), Recorder(gated=True)
    tasks = [asyncio.create_task(batcher.run(recorder.stage, values(n))) for n in (1, 2, 3, 4)]
    await settle()
    recorder.gate.set()
    assert [(await task)[0].tolist() for task in tasks] == [[2], [4], [6], [8]]
    assert recorder.batches == [[1], [2, 3, 4]]


async def test_a_large_call_does_not_hold_up_a_small_one(make: MakeBatcher) -> None:
    """A single row that arrives after a hundred is in the next batch, not in the last."""
    batcher, recorder = make(), Recorder(gated=True)
    large = asyncio.create_task(batcher.run(recorder.stage, values(*range(100, 140))))
    await settle()
    small = asyncio.create_task(batcher.run(recorder.stage, values(1)))
    await settle()
    recorder.gate.set()
    assert (await small)[0].tolist() == [2]
    assert (await large)[0].tolist() == [2 * n for n in range(100, 140)]
    assert 1 in recorder.batches[1]


async def waiting_behind(batcher: Batcher, *calls: Rows) -> list[list[int]]:
    """Return the batches that are made of calls which have arrived, in this order, while another one ran."""
    recorder = Recorder(gated=True)
    tasks = []
    for rows in (values(0), *calls):
        tasks.append(asyncio.create_task(batcher.run(recorder.stage, rows)))
        await settle()
    recorder.gate.set()
    await asyncio.gather(*tasks)
    return recorder.batches[1:]


async def test_equal_calls_are_done_one_after_another(make: MakeBatcher) -> None:
    """Equal calls do not share each batch, because then all would finish as late as the last."""
    batches = await waiting_behind(make(), values(1, 2, 3, 4), values(5, 6, 7, 8), values(9, 10, 11, 12))
    assert batches == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]


async def test_short_calls_go_first_and_the_oldest_gets_on(make: MakeBatcher) -> None:
    """A shorter call overtakes, while the oldest call gets its share of each batch."""
    batches = await waiting_behind(make(), values(*range(10, 18)), values(1, 2), values(3))
    assert batches == [[10, 1, 2, 3], [11, 12, 13, 14], [15, 16, 17]]


async def test_the_oldest_call_is_not_starved(make: MakeBatcher) -> None:
    """A long call ends although short calls arrive all the time."""
    batcher, recorder = make(max_batch_rows=4, max_queued_rows=1000), Recorder()
    long = asyncio.create_task(batcher.run(recorder.stage, values(*range(1000, 1020))))

    async def again_and_again() -> None:
        while not long.done():
            await batcher.run(recorder.stage, values(1, 2))

    await asyncio.gather(*(again_and_again() for _ in range(6)))
    assert len((await long)[0]) == 20


async def test_a_long_call_gets_on_beside_many_short_ones(make: MakeBatcher) -> None:
    """The oldest call gets a quarter of each batch, however many calls wait."""
    batches = await waiting_behind(
        make(), values(*range(10, 18)), *(values(number) for number in range(100, 110))
    )
    assert [sum(10 <= value < 18 for value in batch) for batch in batches[:3]] == [1, 1, 1]
    wide = make(max_batch_rows=16)
    recorder = Recorder(gated=True)
    tasks = [asyncio.create_task(wide.run(recorder.stage, values(0)))]
    await settle()
    tasks.append(asyncio.create_task(wide.run(recorder.stage, values(*range(10, 30)))))
    tasks += [asyncio.create_task(wide.run(recorder.stage, values(number))) for number in range(100, 140)]
    await settle()
    recorder.gate.set()
    await asyncio.gather(*tasks)
    assert sum(value < 100 for value in recorder.batches[1]) == 4


async def test_a_call_that_has_failed_is_in_no_further_batch(make: MakeBatcher) -> None:
    """The remaining rows of a failed call are not computed."""
    batcher, recorder = make(), Recorder(poison=2)
    with pytest.raises(ValueError, match="poison"):
        await batcher.run(recorder.stage, values(*range(12)))
    assert recorder.batches == [[0, 1, 2, 3]]


async def test_calls_behind_many_that_have_ended_are_not_lost(
    make: MakeBatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If all compared calls have ended, the batcher looks at the next ones."""
    monkeypatch.setattr(batcher_module, "_MAX_COMPARED", 2)
    batcher, recorder = make(), Recorder(gated=True)
    tasks = [asyncio.create_task(batcher.run(recorder.stage, values(n))) for n in (1, 2, 3, 4)]
    await settle()
    for call in list(batcher._queues[recorder.stage])[:2]:
        call.done.cancel()
    assert batcher._take_batch(recorder.stage) == []
    recorder.gate.set()
    assert (await tasks[0])[0].tolist() == [2]
    assert (await tasks[3])[0].tolist() == [8]
    await asyncio.wait(tasks)
    assert tasks[1].cancelled()
    assert tasks[2].cancelled()
    assert recorder.batches == [[1], [4]]


async def test_neighbours_of_a_call_whose_results_find_no_room_are_answered(
    make: MakeBatcher,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A call without memory for its results fails alone, and the lane continues."""
    batcher, recorder = make(), Recorder(gated=True)

    def no_room(*_: Any) -> Any:
        raise MemoryError("no room")

    first = asyncio.create_task(batcher.run(recorder.stage, values(1)))
    await settle()
    # Its results come in parts, for which room is made when the first of them is there.
    parted = asyncio.create_task(batcher.run(recorder.stage, values(*range(10, 18))))
    neighbour = asyncio.create_task(batcher.run(recorder.stage, values(3)))
    await settle()
    monkeypatch.setattr(np, "empty", no_room)
    recorder.gate.set()
    assert (await first)[0].tolist() == [2]
    assert (await neighbour)[0].tolist() == [6]
    with pytest.raises(MemoryError, match="no room"):
        await parted
    assert (await batcher.run(recorder.stage, values(5)))[0].tolist() == [10]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 23), min_size=1, max_size=12), st.integers(1, 9), st.integers(1, 3), st.booleans()
)
def test_every_call_gets_its_own_rows_in_order(
    sizes: list[int], max_batch_rows: int, lanes: int, gated: bool
) -> None:
    """For any mix of calls, results are complete and in order, and batches stay within their limit."""
    recorder = Recorder(gated=gated)
    calls = [np.arange(size) + 1000 * index for index, size in enumerate(sizes)]

    async def answer(batcher: Batcher) -> list[Rows]:
        tasks = [asyncio.create_task(batcher.run(recorder.stage, (rows,))) for rows in calls]
        await settle()
        recorder.gate.set()
        async with asyncio.timeout(20):
            return await asyncio.gather(*tasks)

    with closing(new_batcher(lanes=lanes, max_batch_rows=max_batch_rows)) as batcher:
        answers = asyncio.run(answer(batcher))
    for rows, (doubled, plus) in zip(calls, answers, strict=True):
        np.testing.assert_array_equal(doubled, rows * 2)
        np.testing.assert_array_equal(plus, rows.astype(np.float32)[:, None] + 0.5)
    assert max(map(len, recorder.batches)) <= max_batch_rows
    assert sorted(itertools.chain.from_iterable(recorder.batches)) == sorted(np.concatenate(calls).tolist())


async def test_a_cancelled_call_is_never_computed(make: MakeBatcher) -> None:
    """Waiting rows of a cancelled call do not reach the engine, and other calls are answered."""
    batcher, recorder = make(), Recorder(gated=True)
    running = asyncio.create_task(batcher.run(recorder.stage, values(1)))
    await settle()
    leaver = asyncio.create_task(batcher.run(recorder.stage, values(66)))
    neighbour = asyncio.create_task(batcher.run(recorder.stage, values(2)))
    await settle()
    leaver.cancel()
    await settle()
    recorder.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await leaver
    assert (await neighbour)[0].tolist() == [4]
    await running
    assert recorder.batches == [[1], [2]]


async def test_completing_a_call_that_left_harms_nobody(make: MakeBatcher) -> None:
    """A caller that cancels while its batch runs does not disturb the other calls in the batch."""
    batcher, recorder = make(), Recorder(gated=True)
    first = asyncio.create_task(batcher.run(recorder.stage, values(1)))
    await settle()
    leaver = asyncio.create_task(batcher.run(recorder.stage, values(66)))
    neighbour = asyncio.create_task(batcher.run(recorder.stage, values(2)))
    recorder.gate.set()
    await first
    leaver.cancel()
    assert (await neighbour)[0].tolist() == [4]
    with pytest.raises(asyncio.CancelledError):
        await leaver
    assert (await batcher.run(recorder.stage, values(5)))[0].tolist() == [10]


async def test_a_poisonous_row_fails_its_own_call_alone(make: MakeBatcher) -> None:
    """If a batch fails, its calls run one by one, and only the call with the bad row fails."""
    batcher, recorder = make(), Recorder(gated=True, poison=66)
    tasks = [asyncio.create_task(batcher.run(recorder.stage, values(n))) for n in (1, 2, 66, 3)]
    await settle()
    recorder.gate.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [str(o) if isinstance(o, Exception) else o[0].tolist() for o in outcomes] == [  # type: ignore[index]
        [2],
        [4],
        "poison",
        [6],
    ]


def test_admission_counts_rows_and_bytes(make: MakeBatcher) -> None:
    """A call above either limit is refused with a retry delay, and released room can be used again."""
    batcher = make(max_queued_rows=10, max_queued_bytes=100)
    with batcher.admit(rows=8, num_bytes=10):
        with pytest.raises(Overloaded) as caught, batcher.admit(rows=3, num_bytes=1):
            pass
        assert caught.value.retry_delay_s > 0
        with pytest.raises(Overloaded), batcher.admit(rows=1, num_bytes=91):
            pass
        assert (batcher.queued_rows, batcher.queued_bytes) == (8, 10)
    assert (batcher.queued_rows, batcher.queued_bytes) == (0, 0)
    with batcher.admit(rows=10, num_bytes=100):
        pass


async def test_a_delay_lets_a_batch_fill(make: MakeBatcher) -> None:
    """With a queue delay an idle lane waits for more rows, but not after the batch is full."""
    batcher, recorder = make(max_queue_delay_s=0.5), Recorder()
    tasks = []
    for number in (1, 2):
        tasks.append(asyncio.create_task(batcher.run(recorder.stage, values(number))))
        await asyncio.sleep(0.005)
    await asyncio.gather(*tasks)
    loop = asyncio.get_running_loop()
    started_s = loop.time()
    await asyncio.gather(*(batcher.run(recorder.stage, values(n)) for n in (1, 2, 3, 4)))
    assert loop.time() - started_s < 0.4
    assert recorder.batches == [[1, 2], [1, 2, 3, 4]]


async def test_stages_take_turns(make: MakeBatcher) -> None:
    """A stage with a long queue does not block another stage."""
    batcher, busy, other = make(), Recorder(gated=True), Recorder()
    other.batches = busy.batches
    many = [asyncio.create_task(batcher.run(busy.stage, values(n))) for n in range(17)]
    await settle()
    one = asyncio.create_task(batcher.run(other.stage, values(99)))
    await settle()
    busy.gate.set()
    await asyncio.gather(one, *many)
    assert busy.batches.index([99]) == 2


async def test_reports_say_what_ran(make: MakeBatcher) -> None:
    """Each run reports its stage, rows, engine time, and the waiting time of every call that starts in it."""
    reports: list[BatchReport] = []
    batcher, recorder = make(on_batch=reports.append), Recorder()
    await batcher.run(recorder.stage, values(*range(6)))
    assert [(report.stage, report.rows, len(report.queue_s)) for report in reports] == [
        ("double", 4, 1),
        ("double", 2, 0),
    ]
    assert all(report.engine_s >= 0 for report in reports)


async def test_times_are_the_clocks_own(make: MakeBatcher) -> None:
    """Queue time runs from arrival to the lane's start, engine time over the run, both by the clock."""
    reports: list[BatchReport] = []
    now_s = [10.0]
    batcher = make(on_batch=reports.append, clock=lambda: now_s[0])
    began, gate = threading.Event(), threading.Event()

    def slow(rows: Rows) -> Rows:
        began.set()
        assert gate.wait(10)
        now_s[0] += 0.0007
        return rows

    stage = Stage("slow", slow)
    first = asyncio.create_task(batcher.run(stage, values(1)))
    assert await asyncio.to_thread(began.wait, 10)
    (running,) = batcher.runs
    assert (running.stage, running.rows, running.started_s) == ("slow", 1, 10.0)
    second = asyncio.create_task(batcher.run(stage, values(2, 3)))
    await settle()
    now_s[0] = 10.25
    gate.set()
    await asyncio.gather(first, second)
    assert batcher.runs == ()
    assert [report.queue_s for report in reports] == [(0.0,), (pytest.approx(0.2507),)]
    assert [report.engine_s for report in reports] == [pytest.approx(0.2507), pytest.approx(0.0007)]


def test_times_are_finer_than_uvloops_clock(make: MakeBatcher) -> None:
    """Times have a resolution below a millisecond under uvloop, whose own clock has not."""
    reports: list[BatchReport] = []
    batcher, recorder = make(on_batch=reports.append), Recorder()

    async def body() -> None:
        for number in range(20):
            await batcher.run(recorder.stage, values(number))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(body())
    times_s = [report.engine_s for report in reports] + [report.queue_s[0] for report in reports]
    assert all(seconds > 0 for seconds in times_s)
    assert any(abs(1000 * seconds - round(1000 * seconds)) > 1e-6 for seconds in times_s)
