"""Reports of what the lanes ran, and their times."""

import threading

import pytest

from convvae_service.batching.report import BatchReport, SliceReport
from convvae_service.engine.stages import Rows, Stage
from support.doubling import MakeBatcher, Recorder, answer, result_of, submit_running, values


def test_reports_say_what_ran(make: MakeBatcher) -> None:
    """Each run reports its stage, rows, engine time, and the waiting time of every call that starts in it."""
    reports: list[BatchReport] = []
    batcher, recorder = make(on_batch=reports.append), Recorder()
    answer(batcher, recorder.stage, *range(6))
    assert [(report.stage, report.rows, len(report.queue_s)) for report in reports] == [
        ("double", 4, 1),
        ("double", 2, 0),
    ]
    assert all(report.engine_s >= 0 for report in reports)


def test_observers_see_the_runs_of_their_own_call(make: MakeBatcher) -> None:
    """Each run with rows of a call is reported to its observer, before the call has its results."""
    batcher, recorder = make(), Recorder(gated=True)
    first = submit_running(batcher, recorder, 0)
    seen: list[SliceReport] = []
    observed = batcher.submit(recorder.stage, values(*range(10, 15)), seen.append)
    neighbour = batcher.submit(recorder.stage, values(1))
    recorder.gate.set()
    result_of(observed)
    assert [(report.stage, report.rows, report.batch_rows, report.is_first) for report in seen] == [
        ("double", 3, 4, True),
        ("double", 2, 2, False),
    ]
    for report in seen:
        arrived_s, started_s, ended_s = report.times_s
        assert arrived_s <= started_s <= ended_s <= report.now_s
    result_of(first)
    result_of(neighbour)


def test_times_are_the_clocks_own(make: MakeBatcher) -> None:
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
    first = batcher.submit(stage, values(1))
    assert began.wait(10)
    (running,) = batcher.runs
    assert (running.stage, running.rows, running.started_s) == ("slow", 1, 10.0)
    second = batcher.submit(stage, values(2, 3))
    now_s[0] = 10.25
    gate.set()
    result_of(first)
    result_of(second)
    assert batcher.runs == ()
    assert [report.queue_s for report in reports] == [(0.0,), (pytest.approx(0.2507),)]
    assert [report.engine_s for report in reports] == [pytest.approx(0.2507), pytest.approx(0.0007)]


def test_times_are_finer_than_a_millisecond(make: MakeBatcher) -> None:
    """Times have a resolution below a millisecond, as short runs require."""
    reports: list[BatchReport] = []
    batcher, recorder = make(on_batch=reports.append), Recorder()
    for number in range(20):
        answer(batcher, recorder.stage, number)
    times_s = [report.engine_s for report in reports] + [report.queue_s[0] for report in reports]
    assert all(seconds > 0 for seconds in times_s)
    assert any(abs(1000 * seconds - round(1000 * seconds)) > 1e-6 for seconds in times_s)
