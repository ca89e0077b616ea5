"""The sums over a stage's runs."""

import threading
from contextlib import closing

import numpy as np

from convvae_service.batching.batcher import Batcher
from convvae_service.engine.stage_stats import StageStats
from convvae_service.engine.stages import Rows, Stage


def test_sums_follow_the_runs() -> None:
    """Each call is counted once, with the time of every run that had rows of it."""
    stats = StageStats()
    stats.add(rows=3, calls=2, queue_s=(0.5, 0.25), engine_s=1.0)
    stats.add(rows=3, calls=1, queue_s=(), engine_s=2.0)
    assert (stats.rows, stats.runs) == (6, 2)
    assert (stats.queue.count, stats.queue.ns) == (2, 750_000_000)
    assert (stats.compute.count, stats.compute.ns) == (2, 4_000_000_000)
    assert {rows: (runs.count, runs.ns) for rows, runs in stats.by_rows.items()} == {3: (2, 3_000_000_000)}


def test_the_batcher_counts_every_run_of_a_stage() -> None:
    """A call that is split adds each of its runs and itself once; another stage's stats stays empty."""

    def double(rows: Rows) -> Rows:
        return (rows[0] * 2,)

    stage, other = Stage("double", double), Stage("double", double)

    batcher = Batcher(lanes=1, max_batch_rows=4, max_queued_rows=100)
    with closing(batcher):
        call, ended = batcher.submit(stage, (np.arange(10),)), threading.Event()
        call.add_done_callback(lambda _: ended.set())
        assert ended.wait(20)
    (doubled,) = call.result()
    assert doubled.tolist() == list(range(0, 20, 2))
    assert (stage.stats.rows, stage.stats.runs, stage.stats.queue.count) == (10, 3, 1)
    assert {rows: runs.count for rows, runs in stage.stats.by_rows.items()} == {4: 2, 2: 1}
    assert stage.stats.last_run_ms > 0
    assert other.stats.runs == 0


def test_a_copy_can_be_read_while_lanes_add() -> None:
    """Statistics are read in one thread while others add batches of new sizes."""
    stats = StageStats()
    done = threading.Event()

    def add() -> None:
        for rows in range(1, 3000):
            stats.add(rows=rows, calls=1, queue_s=(0.0,), engine_s=0.001)
        done.set()

    threading.Thread(target=add).start()
    while not done.is_set():
        copy = stats.snapshot()
        assert sum(total.count for total in copy.by_rows.values()) == copy.runs == copy.compute.count
    assert stats.snapshot().rows == stats.rows == 3000 * 2999 // 2
