"""Batches that form while the engine is busy.

Calls wait per stage, in order of arrival. An idle lane takes what waits at once; calls that arrive while all
lanes are busy form the next batch. `sharing` decides how many rows of each call it contains. All state
belongs to the event loop; only stages run in threads.
"""

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from convvae_service.batching.pending_call import CallSlice, PendingCall, SliceObserver
from convvae_service.batching.report import BatchReport, SliceReport
from convvae_service.batching.sharing import share
from convvae_service.engine.stages import Rows, Stage
from convvae_service.errors import Overloaded

__all__ = ["Batcher", "RunningBatch"]

_log = logging.getLogger(__name__)

# Maximum number of calls in a queue that are compared for a batch, which takes 0.1 ms.
_MAX_COMPARED = 1024
# A dict keeps the order and removes from the middle in constant time, as cancelled calls require.
_Queue = dict[PendingCall, None]


@dataclass(frozen=True, eq=False, slots=True)
class RunningBatch:
    """A batch that a lane computes now. `started_s` is by the batcher's clock."""

    stage: str
    rows: int
    started_s: float


@dataclass(frozen=True, slots=True)
class _Outcome:
    """The results or the error of each slice of a batch, and the times of the run."""

    results: list[Rows | Exception]
    started_s: float
    ended_s: float


@dataclass(kw_only=True)
class Batcher:
    """Runs stages in batches on several lanes, and limits what may wait.

    Args:
        lanes: Number of batches that run at the same time.
        max_batch_rows: Maximum number of rows in one batch.
        max_queued_rows: Maximum number of rows of calls that are admitted and not yet answered.
        max_queued_bytes: Maximum bytes of inputs and results of these calls.
        max_queue_delay_s: Seconds that an idle lane waits for a batch to fill; 0 never waits.
        on_batch: Called after each run.
        observe_call: Called when a call's rows arrive, in the context of the call. It returns an observer
            that gets a report of each run with rows of this call, or None.
        clock: Source of all times here, in seconds. The event loop's clock is too coarse: uvloop's counts
            whole milliseconds.
    """

    lanes: int
    max_batch_rows: int
    max_queued_rows: int
    max_queued_bytes: int
    max_queue_delay_s: float = 0.0
    on_batch: Callable[[BatchReport], None] = lambda _: None
    observe_call: Callable[[], SliceObserver | None] = lambda: None
    clock: Callable[[], float] = time.monotonic
    queued_rows: int = field(default=0, init=False)
    queued_bytes: int = field(default=0, init=False)
    _queues: dict[Stage, _Queue] = field(default_factory=dict, init=False)
    _runs: set[RunningBatch] = field(default_factory=set, init=False)
    _timer: asyncio.TimerHandle | None = field(default=None, init=False)
    _timer_due_s: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._threads = ThreadPoolExecutor(self.lanes, thread_name_prefix="lane")

    @contextmanager
    def admit(self, *, rows: int, num_bytes: int) -> Iterator[None]:
        """Reserve room for a call while the block runs.

        Raises:
            Overloaded: There is no room at present.
        """
        if (
            self.queued_rows + rows > self.max_queued_rows
            or self.queued_bytes + num_bytes > self.max_queued_bytes
        ):
            raise Overloaded("the server's queue is full: retry after the stated delay", retry_delay_s=0.1)
        self.queued_rows += rows
        self.queued_bytes += num_bytes
        try:
            yield
        finally:
            self.queued_rows -= rows
            self.queued_bytes -= num_bytes

    async def run(self, stage: Stage, rows: Rows) -> Rows:
        """Return the stage's results for `rows`, in the same order.

        If the caller is cancelled, its waiting rows leave the queue and are not computed.
        """
        loop = asyncio.get_running_loop()
        call = PendingCall(rows, loop.create_future(), self.clock(), self.observe_call())
        self._queues.setdefault(stage, {})[call] = None
        self._dispatch()
        try:
            return await call.done
        finally:
            queue = self._queues.get(stage, {})
            queue.pop(call, None)
            if not queue:
                self._queues.pop(stage, None)

    @property
    def runs(self) -> tuple[RunningBatch, ...]:
        """The batches that run now. Read it in the event loop only."""
        return tuple(self._runs)

    def close(self) -> None:
        """Stop the lanes' threads after their current runs."""
        if self._timer is not None:
            self._timer.cancel()
        self._threads.shutdown()

    def _dispatch(self) -> None:
        """Start a batch on every idle lane, as long as calls wait."""
        while len(self._runs) < self.lanes:
            stage = self._next_stage()
            if stage is None:
                return
            if slices := self._take_batch(stage):
                self._start(stage, slices)

    def _next_stage(self) -> Stage | None:
        """Return the first stage with a batch that is due. Without one, set the timer and return None."""
        now_s = self.clock()
        due_s = None
        for stage, queue in self._queues.items():
            if not queue:
                continue
            ready_s = next(iter(queue)).arrived_s + self.max_queue_delay_s
            waiting = sum(call.num_left for call in queue) if self.max_queue_delay_s else 0
            if ready_s <= now_s or waiting >= self.max_batch_rows:
                return stage
            due_s = ready_s if due_s is None else min(due_s, ready_s)
        if due_s is not None:
            self._set_timer(due_s, now_s)
        return None

    def _set_timer(self, due_s: float, now_s: float) -> None:
        if self._timer is not None:
            if self._timer_due_s <= due_s:
                return
            self._timer.cancel()
        self._timer_due_s = due_s
        self._timer = asyncio.get_running_loop().call_later(due_s - now_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._dispatch()

    def _take_batch(self, stage: Stage) -> list[CallSlice]:
        """Take the next batch out of the stage's queue. It is empty if all compared calls have ended."""
        queue = self._queues.pop(stage)
        waiting: list[PendingCall] = []
        for call in list(itertools.islice(queue, _MAX_COMPARED)):
            # A call that failed or was cancelled may still be in the queue, until its task runs.
            if call.done.done():
                del queue[call]
            else:
                waiting.append(call)
        slices: list[CallSlice] = []
        if waiting:
            counts = share([call.num_left for call in waiting], self.max_batch_rows)
            for call, count in zip(waiting, counts, strict=True):
                if count:
                    slices.append(call.take(count))
                    if not call.num_left:
                        del queue[call]
        if queue:
            # At the end of the dict, so that the other stages come first.
            self._queues[stage] = queue
        return slices

    def _start(self, stage: Stage, slices: list[CallSlice]) -> None:
        running = RunningBatch(stage.name, sum(map(len, slices)), self.clock())
        self._runs.add(running)

        def compute() -> _Outcome:
            # The lane measures the time, because the event loop may read the results late.
            started_s = self.clock()
            return _Outcome(_run_batch(stage, slices), started_s, self.clock())

        def finish(future: "asyncio.Future[_Outcome]") -> None:
            self._runs.discard(running)
            try:
                outcome = future.result()
                _deliver(slices, outcome.results)
                self._report(stage, slices, outcome)
            finally:
                self._dispatch()

        asyncio.get_running_loop().run_in_executor(self._threads, compute).add_done_callback(finish)

    def _report(self, stage: Stage, slices: list[CallSlice], outcome: _Outcome) -> None:
        """Report a run to the stage's statistics, to the metrics and to the observers of its calls."""
        rows = sum(map(len, slices))
        queue_s = tuple(outcome.started_s - part.call.arrived_s for part in slices if part.start == 0)
        engine_s = outcome.ended_s - outcome.started_s
        stage.stats.add(rows=rows, calls=len(slices), queue_s=queue_s, engine_s=engine_s)
        self.on_batch(BatchReport(stage=stage.name, rows=rows, queue_s=queue_s, engine_s=engine_s))
        for part in slices:
            if part.call.observe is not None:
                part.call.observe(
                    SliceReport(
                        stage=stage.name,
                        rows=len(part),
                        batch_rows=rows,
                        is_first=part.start == 0,
                        times_s=(part.call.arrived_s, outcome.started_s, outcome.ended_s),
                        now_s=self.clock(),
                    )
                )


def _deliver(slices: list[CallSlice], results: list[Rows | Exception]) -> None:
    """Give each call its part of the results, or its error."""
    for part, result in zip(slices, results, strict=True):
        if isinstance(result, Exception):
            part.call.fail(result)
            continue
        try:
            part.call.accept(part.start, result)
        except Exception as error:  # noqa: BLE001 - for example MemoryError; the other calls get their results
            part.call.fail(error)


def _run_batch(stage: Stage, slices: list[CallSlice]) -> list[Rows | Exception]:
    """Run one batch in a lane's thread. Return the results of each slice, or the error that it causes."""
    if len(slices) == 1:
        return [_run_alone(stage, slices[0])]
    try:
        inputs = zip(*(part.rows for part in slices), strict=True)
        results = stage.run(tuple(np.concatenate(arrays) for arrays in inputs))
    except Exception:  # noqa: BLE001 - the cause is found by running the calls one by one
        # One bad row must not fail the calls that share its batch.
        _log.warning("a batch failed, running its calls one by one", exc_info=True)
        return [_run_alone(stage, part) for part in slices]
    edges = np.cumsum([len(part) for part in slices])[:-1]
    return list(zip(*(np.split(array, edges) for array in results), strict=True))


def _run_alone(stage: Stage, part: CallSlice) -> Rows | Exception:
    try:
        return stage.run(part.rows)
    except Exception as error:  # noqa: BLE001 - it belongs to this call, which raises it
        return error
