"""Batches from the rows of many calls: order, fairness, admission and errors."""

import itertools
import threading
import time
from concurrent.futures import CancelledError
from contextlib import closing
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convvae_service.batching import batcher as batcher_module
from convvae_service.batching.batcher import Batcher
from convvae_service.engine.stages import Rows
from convvae_service.errors import Overloaded
from support.doubling import MakeBatcher, Recorder, answer, new_batcher, result_of, submit_running, values
from support.waiting import wait_until


def test_an_idle_lane_takes_a_call_at_once(make: MakeBatcher) -> None:
    """A single row does not wait for a batch to fill."""
    batcher, recorder = make(), Recorder()
    doubled, plus = result_of(batcher.submit(recorder.stage, values(3)))
    assert (doubled.tolist(), plus.tolist()) == ([6], [[3.5]])
    assert recorder.batches == [[3]]


def test_calls_that_arrive_while_the_lane_is_busy_share_a_batch(make: MakeBatcher) -> None:
    """Three calls behind a running batch are one batch, and each gets its own rows back."""
    batcher, recorder = make(), Recorder(gated=True)
    calls = [submit_running(batcher, recorder, 1)]
    calls += [batcher.submit(recorder.stage, values(number)) for number in (2, 3, 4)]
    recorder.gate.set()
    assert [result_of(call)[0].tolist() for call in calls] == [[2], [4], [6], [8]]
    assert recorder.batches == [[1], [2, 3, 4]]


def test_a_large_call_does_not_hold_up_a_small_one(make: MakeBatcher) -> None:
    """A single row that arrives after a hundred is in the next batch, not in the last."""
    batcher, recorder = make(), Recorder(gated=True)
    large = submit_running(batcher, recorder, *range(100, 140))
    small = batcher.submit(recorder.stage, values(1))
    recorder.gate.set()
    assert result_of(small)[0].tolist() == [2]
    assert result_of(large)[0].tolist() == [2 * n for n in range(100, 140)]
    assert 1 in recorder.batches[1]


def waiting_behind(batcher: Batcher, *calls: Rows) -> list[list[int]]:
    """Return the batches that are made of calls which have arrived, in this order, while another one ran."""
    recorder = Recorder(gated=True)
    submit_running(batcher, recorder, 0)
    waiting = [batcher.submit(recorder.stage, rows) for rows in calls]
    recorder.gate.set()
    for call in waiting:
        result_of(call)
    return recorder.batches[1:]


def test_equal_calls_are_done_one_after_another(make: MakeBatcher) -> None:
    """Equal calls do not share each batch, because then all would finish as late as the last."""
    batches = waiting_behind(make(), values(1, 2, 3, 4), values(5, 6, 7, 8), values(9, 10, 11, 12))
    assert batches == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]


def test_short_calls_go_first_and_the_oldest_gets_on(make: MakeBatcher) -> None:
    """A shorter call overtakes, while the oldest call gets its share of each batch."""
    batches = waiting_behind(make(), values(*range(10, 18)), values(1, 2), values(3))
    assert batches == [[10, 1, 2, 3], [11, 12, 13, 14], [15, 16, 17]]


def test_the_oldest_call_is_not_starved(make: MakeBatcher) -> None:
    """A long call ends although short calls arrive all the time."""
    batcher, recorder = make(max_batch_rows=4, max_queued_rows=1000), Recorder()
    long = batcher.submit(recorder.stage, values(*range(1000, 1020)))

    def again_and_again() -> None:
        while not long.done:
            answer(batcher, recorder.stage, 1, 2)

    callers = [threading.Thread(target=again_and_again) for _ in range(6)]
    for caller in callers:
        caller.start()
    assert len(result_of(long)[0]) == 20
    for caller in callers:
        caller.join()


def test_a_long_call_gets_on_beside_many_short_ones(make: MakeBatcher) -> None:
    """The oldest call gets a quarter of each batch, however many calls wait."""
    batches = waiting_behind(make(), values(*range(10, 18)), *(values(number) for number in range(100, 110)))
    assert [sum(10 <= value < 18 for value in batch) for batch in batches[:3]] == [1, 1, 1]
    wide = waiting_behind(
        make(max_batch_rows=16), values(*range(10, 30)), *(values(number) for number in range(100, 140))
    )
    assert sum(value < 100 for value in wide[0]) == 4


def test_a_call_that_has_failed_is_in_no_further_batch(make: MakeBatcher) -> None:
    """The remaining rows of a failed call are not computed."""
    batcher, recorder = make(), Recorder(poison=2)
    with pytest.raises(ValueError, match="poison"):
        answer(batcher, recorder.stage, *range(12))
    assert answer(batcher, recorder.stage, 99) == [198]
    assert recorder.batches == [[0, 1, 2, 3], [99]]


def test_calls_behind_many_that_have_ended_are_not_lost(
    make: MakeBatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If all compared calls have ended, the batcher looks at the next ones."""
    monkeypatch.setattr(batcher_module, "_MAX_COMPARED", 2)
    batcher, recorder = make(), Recorder(gated=True)
    first = submit_running(batcher, recorder, 1)
    # Calls that have ended stay in the queue for a moment. Here they stay until the lane finds them.
    monkeypatch.setattr(batcher, "_forget", lambda _: None)
    ended = [batcher.submit(recorder.stage, values(number)) for number in (2, 3)]
    last = batcher.submit(recorder.stage, values(4))
    assert all(call.cancel() for call in ended)
    with batcher._changed:
        assert batcher._take_batch(recorder.stage) == []
    recorder.gate.set()
    assert result_of(first)[0].tolist() == [2]
    assert result_of(last)[0].tolist() == [8]
    for call in ended:
        with pytest.raises(CancelledError):
            result_of(call)
    assert recorder.batches == [[1], [4]]


def test_neighbours_of_a_call_whose_results_find_no_room_are_answered(
    make: MakeBatcher,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A call without memory for its results fails alone, and the lane continues."""
    batcher, recorder = make(), Recorder(gated=True)

    def no_room(*_: Any) -> Any:
        raise MemoryError("no room")

    first = submit_running(batcher, recorder, 1)
    # Its results come in parts, for which room is made when the first of them is there.
    parted = batcher.submit(recorder.stage, values(*range(10, 18)))
    neighbour = batcher.submit(recorder.stage, values(3))
    monkeypatch.setattr(np, "empty", no_room)
    recorder.gate.set()
    assert result_of(first)[0].tolist() == [2]
    assert result_of(neighbour)[0].tolist() == [6]
    with pytest.raises(MemoryError, match="no room"):
        result_of(parted)
    assert answer(batcher, recorder.stage, 5) == [10]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 23), min_size=1, max_size=12), st.integers(1, 9), st.integers(1, 3), st.booleans()
)
def test_every_call_gets_its_own_rows_in_order(
    sizes: list[int], max_batch_rows: int, lanes: int, gated: bool
) -> None:
    """For any mix of calls, results are complete and in order, and batches stay within their limit."""
    recorder = Recorder(gated=gated)
    inputs = [np.arange(size) + 1000 * index for index, size in enumerate(sizes)]
    with closing(new_batcher(lanes=lanes, max_batch_rows=max_batch_rows)) as batcher:
        calls = [batcher.submit(recorder.stage, (rows,)) for rows in inputs]
        recorder.gate.set()
        answers = [result_of(call) for call in calls]
    for rows, (doubled, plus) in zip(inputs, answers, strict=True):
        np.testing.assert_array_equal(doubled, rows * 2)
        np.testing.assert_array_equal(plus, rows.astype(np.float32)[:, None] + 0.5)
    assert max(map(len, recorder.batches)) <= max_batch_rows
    assert sorted(itertools.chain.from_iterable(recorder.batches)) == sorted(np.concatenate(inputs).tolist())


def test_a_cancelled_call_is_never_computed(make: MakeBatcher) -> None:
    """Waiting rows of a cancelled call do not reach the engine, and other calls are answered."""
    batcher, recorder = make(), Recorder(gated=True)
    running = submit_running(batcher, recorder, 1)
    leaver = batcher.submit(recorder.stage, values(66))
    neighbour = batcher.submit(recorder.stage, values(2))
    assert leaver.cancel()
    recorder.gate.set()
    with pytest.raises(CancelledError):
        result_of(leaver)
    assert result_of(neighbour)[0].tolist() == [4]
    result_of(running)
    assert recorder.batches == [[1], [2]]


def test_completing_a_call_that_left_harms_nobody(make: MakeBatcher) -> None:
    """A caller that cancels while its batch runs does not disturb the other calls in the batch."""
    batcher, recorder = make(), Recorder(gated=True)
    first = submit_running(batcher, recorder, 1)
    leaver = batcher.submit(recorder.stage, values(66))
    neighbour = batcher.submit(recorder.stage, values(2))
    # The second batch begins in the lane that completes the first call, and waits at a closed gate.
    first.add_done_callback(lambda _: recorder.gate.clear())
    recorder.began.clear()
    recorder.gate.set()
    assert recorder.began.wait(10)
    assert recorder.batches[1] == [66, 2]
    assert leaver.cancel()
    recorder.gate.set()
    assert result_of(neighbour)[0].tolist() == [4]
    with pytest.raises(CancelledError):
        result_of(leaver)
    assert answer(batcher, recorder.stage, 5) == [10]


def test_a_poisonous_row_fails_its_own_call_alone(make: MakeBatcher) -> None:
    """If a batch fails, its calls run one by one, and only the call with the bad row fails."""
    batcher, recorder = make(), Recorder(gated=True, poison=66)
    calls = [submit_running(batcher, recorder, 1)]
    calls += [batcher.submit(recorder.stage, values(number)) for number in (2, 66, 3)]
    recorder.gate.set()
    assert result_of(calls[0])[0].tolist() == [2]
    assert result_of(calls[1])[0].tolist() == [4]
    with pytest.raises(ValueError, match="poison"):
        result_of(calls[2])
    assert result_of(calls[3])[0].tolist() == [6]


def test_admission_counts_rows(make: MakeBatcher) -> None:
    """A call above the limit is refused with a retry delay, and released room can be used again."""
    batcher = make(max_queued_rows=10)
    with batcher.admit(rows=8):
        with pytest.raises(Overloaded, match="queue is full") as caught, batcher.admit(rows=3):
            pass
        assert caught.value.retry_delay_s > 0
        assert batcher.queued_rows == 8
    assert batcher.queued_rows == 0
    with batcher.admit(rows=10):
        pass


def test_large_calls_do_not_lock_small_ones_out(make: MakeBatcher) -> None:
    """Beyond the limit there is a sixteenth for calls of at most 16 rows."""
    batcher = make(max_queued_rows=320)
    with batcher.admit(rows=320):
        with pytest.raises(Overloaded), batcher.admit(rows=17):
            pass
        with batcher.admit(rows=16), batcher.admit(rows=4):
            with pytest.raises(Overloaded), batcher.admit(rows=1):
                pass
            assert batcher.queued_rows == 340
    assert batcher.queued_rows == 0


def test_a_delay_lets_a_batch_fill(make: MakeBatcher) -> None:
    """With a queue delay an idle lane waits for more rows, but not after the batch is full."""
    batcher, recorder = make(max_queue_delay_s=0.5), Recorder()
    calls = []
    for number in (1, 2):
        calls.append(batcher.submit(recorder.stage, values(number)))
        wait_until(lambda: batcher._idle == 1)
    for call in calls:
        result_of(call)
    started_s = time.monotonic()
    for call in [batcher.submit(recorder.stage, values(number)) for number in (1, 2, 3, 4)]:
        result_of(call)
    assert time.monotonic() - started_s < 0.4
    assert recorder.batches == [[1, 2], [1, 2, 3, 4]]


def test_stages_take_turns(make: MakeBatcher) -> None:
    """A stage with a long queue does not block another stage."""
    batcher, busy, other = make(), Recorder(gated=True), Recorder()
    other.batches = busy.batches
    calls = [submit_running(batcher, busy, 0)]
    calls += [batcher.submit(busy.stage, values(number)) for number in range(1, 17)]
    calls.append(batcher.submit(other.stage, values(99)))
    busy.gate.set()
    for call in calls:
        result_of(call)
    assert busy.batches.index([99]) == 2


def test_a_short_call_that_comes_alone_runs_in_its_thread(make: MakeBatcher) -> None:
    """No lane is woken for it. The first call of a size still goes to a lane: nobody knows its time."""
    batcher, recorder = make(), Recorder()
    first = batcher.submit(recorder.stage, values(1), alone=True)
    assert result_of(first)[0].tolist() == [2]
    wait_until(lambda: not batcher.runs)
    second = batcher.submit(recorder.stage, values(2), alone=True)
    assert second.done
    assert second.result()[0].tolist() == [4]
    assert recorder.threads == ["lane-0", threading.current_thread().name]
    assert (recorder.stage.stats.runs, batcher.runs) == (2, ())


@pytest.mark.parametrize("why", ["long", "large", "running", "delayed"])
def test_a_call_that_would_hold_its_thread_goes_to_a_lane(make: MakeBatcher, why: str) -> None:
    """One whose runs take long, one above the size of a batch, and one that would not be the only run."""
    batcher = make(max_queue_delay_s=0.001) if why == "delayed" else make()
    recorder = Recorder(gated=True)
    rows = values(*range(5)) if why == "large" else values(0)
    recorder.stage.stats.add(
        rows=len(rows[0]), calls=1, queue_s=(0.0,), engine_s=1.0 if why == "long" else 1e-6
    )
    before = [submit_running(batcher, recorder, 7)] if why == "running" else []
    call = batcher.submit(recorder.stage, rows, alone=True)
    assert not call.done
    recorder.gate.set()
    for each in (*before, call):
        result_of(each)
    assert set(recorder.threads) == {"lane-0"}


def test_the_error_of_a_call_that_comes_alone_is_its_own(make: MakeBatcher) -> None:
    """Its thread goes on, and the next call is answered."""
    batcher, recorder = make(), Recorder(poison=3)
    recorder.stage.stats.add(rows=1, calls=1, queue_s=(0.0,), engine_s=1e-6)
    bad = batcher.submit(recorder.stage, values(3), alone=True)
    with pytest.raises(ValueError, match="poison"):
        bad.result()
    assert batcher.submit(recorder.stage, values(4), alone=True).result()[0].tolist() == [8]
    assert not batcher.runs
