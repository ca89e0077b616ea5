"""Batches that form while the engine is busy.

Work waits per stage, in order of arrival. An idle lane takes what waits at once; what arrives while all
lanes are busy makes up the next batch. In it the oldest call has its share and the shortest go first, so that
a call of a thousand rows does not hold up one of a single row. All state belongs to the event loop; only
stages run in threads.
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

from convvae_service.batching.report import BatchReport, SliceReport
from convvae_service.engine.stages import Rows, Stage
from convvae_service.errors import Overloaded

__all__ = ["Batcher", "RunningBatch"]

_log = logging.getLogger(__name__)


Observe = Callable[[SliceReport], None]


@dataclass(frozen=True, eq=False, slots=True)
class RunningBatch:
    """A batch that a lane computes now; `started_s` is by the batcher's clock."""

    stage: str
    rows: int
    started_s: float


@dataclass(eq=False, slots=True)
class PendingCall:
    """The rows of one call at one stage; `taken` of them are in batches already."""

    rows: Rows
    done: asyncio.Future[Rows]
    arrived_s: float
    observe: Observe | None = None
    taken: int = 0
    returned: int = 0
    results: Rows = ()

    def __len__(self) -> int:
        return len(self.rows[0])

    @property
    def left(self) -> int:
        """Rows that are in no batch yet."""
        return len(self) - self.taken

    def accept(self, start: int, results: Rows) -> None:
        """Take the results of the rows from `start` on; after the last the call is done."""
        count = len(results[0])
        if count == len(self):
            self.results = results
        else:
            if not self.results:
                self.results = tuple(np.empty((len(self), *r.shape[1:]), r.dtype) for r in results)
            for whole, part in zip(self.results, results, strict=True):
                whole[start : start + count] = part
        self.returned += count
        # A call that was cancelled or has failed meanwhile is done already.
        if self.returned == len(self) and not self.done.done():
            self.done.set_result(self.results)

    def fail(self, error: BaseException) -> None:
        if not self.done.done():
            self.done.set_exception(error)


@dataclass(frozen=True, slots=True)
class CallSlice:
    work: PendingCall
    start: int
    stop: int

    @property
    def rows(self) -> Rows:
        return tuple(array[self.start : self.stop] for array in self.work.rows)


# So many calls of a queue are compared for a batch, a tenth of a millisecond of the event loop.
_MAX_COMPARED = 1024
# Where many wait, the oldest has this part of a batch: with less a long call would hardly get on.
_MOST_SHARES = 4
# A dict keeps order and removes from the middle at once, which is what cancelled calls need.
_Queue = dict[PendingCall, None]


@dataclass(kw_only=True)
class Batcher:
    """Runs stages in batches on a number of lanes, within limits on what may wait.

    Args:
        lanes: Runs at the same time.
        max_batch_rows: Most rows in one run.
        max_queued_rows: Most rows admitted and not yet answered.
        max_queued_bytes: Most bytes of inputs and results admitted and not yet answered.
        max_queue_delay_s: How long an idle lane waits for a batch to fill; 0 never waits.
        on_batch: Called after each run.
        begin: Called when a call's rows arrive, in the call's context; what it returns, if anything, is told
            of each run that has some of them.
        clock: Seconds for all that is measured here. The event loop's own clock would be too coarse: uvloop's
            has whole milliseconds.
    """

    lanes: int
    max_batch_rows: int
    max_queued_rows: int
    max_queued_bytes: int
    max_queue_delay_s: float = 0.0
    on_batch: Callable[[BatchReport], None] = lambda _: None
    begin: Callable[[], Observe | None] = lambda: None
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
        """Reserve room for a call, for as long as it takes.

        Raises:
            Overloaded: There is no room now.
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
        """Return the stage's results for `rows`, in their order.

        A caller that is cancelled takes its waiting rows out of the queue before they are computed.
        """
        loop = asyncio.get_running_loop()
        work = PendingCall(rows, loop.create_future(), self.clock(), self.begin())
        self._queues.setdefault(stage, {})[work] = None
        self._dispatch()
        try:
            return await work.done
        finally:
            queue = self._queues.get(stage, {})
            queue.pop(work, None)
            if not queue:
                self._queues.pop(stage, None)

    @property
    def runs(self) -> tuple[RunningBatch, ...]:
        """The batches that the lanes compute now. For the event loop, as all state."""
        return tuple(self._runs)

    def close(self) -> None:
        """End the lanes' threads; runs under way are waited for."""
        if self._timer is not None:
            self._timer.cancel()
        self._threads.shutdown()

    def _dispatch(self) -> None:
        """Give every idle lane a batch, for as long as there is work."""
        while len(self._runs) < self.lanes:
            stage = self._next_stage()
            if stage is None:
                return
            if slices := self._take(stage):
                self._start(stage, slices)

    def _next_stage(self) -> Stage | None:
        """Return the stage whose turn it is, or None when none is due."""
        now_s = self.clock()
        due_s = None
        for stage, queue in self._queues.items():
            if not queue:
                continue
            ready_s = next(iter(queue)).arrived_s + self.max_queue_delay_s
            waiting = sum(work.left for work in queue) if self.max_queue_delay_s else 0
            if ready_s <= now_s or waiting >= self.max_batch_rows:
                return stage
            due_s = ready_s if due_s is None else min(due_s, ready_s)
        if due_s is not None:
            self._wake(due_s, now_s)
        return None

    def _wake(self, due_s: float, now_s: float) -> None:
        if self._timer is not None:
            if self._timer_due_s <= due_s:
                return
            self._timer.cancel()
        self._timer_due_s = due_s
        self._timer = asyncio.get_running_loop().call_later(due_s - now_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._dispatch()

    def _take(self, stage: Stage) -> list[CallSlice]:
        """Take the next batch from a stage's queue: a share for the oldest call, then the shortest first.

        So the oldest always gets on, a short call overtakes a long one, and equal ones come one by one:
        were they all to advance together, each would be done as late as the last.
        """
        queue = self._queues.pop(stage)
        waiting: list[PendingCall] = []
        for work in list(itertools.islice(queue, _MAX_COMPARED)):
            # A call that has failed, or whose caller has left in this turn of the loop, is still here.
            if work.done.done():
                del queue[work]
            else:
                waiting.append(work)
        if not waiting:
            if queue:
                self._queues[stage] = queue
            return []
        space, oldest = self.max_batch_rows, waiting[0]
        counts = dict.fromkeys(waiting, 0)
        counts[oldest] = min(oldest.left, max(1, space // min(len(waiting), _MOST_SHARES)))
        space -= counts[oldest]
        # Of equal ones the older: the sort is stable.
        for work in sorted(waiting, key=lambda work: work.left - counts[work]):
            more = min(work.left - counts[work], space)
            counts[work] += more
            space -= more
        slices: list[CallSlice] = []
        for work, count in counts.items():
            if count:
                slices.append(CallSlice(work, work.taken, work.taken + count))
                work.taken += count
            if not work.left:
                del queue[work]
        if queue:
            # Put back at the end: the other stages come first.
            self._queues[stage] = queue
        return slices

    def _start(self, stage: Stage, slices: list[CallSlice]) -> None:
        rows = sum(piece.stop - piece.start for piece in slices)
        current = RunningBatch(stage.name, rows, self.clock())
        self._runs.add(current)

        def compute() -> tuple[list[Rows | Exception], float, float]:
            # Measured here, since the event loop may come to the results late.
            started_s = self.clock()
            return _run_batch(stage, slices), started_s, self.clock()

        run = asyncio.get_running_loop().run_in_executor(self._threads, compute)

        def finish(run: "asyncio.Future[tuple[list[Rows | Exception], float, float]]") -> None:
            self._runs.discard(current)
            try:
                self._hand_out(stage, slices, *run.result())
            finally:
                self._dispatch()

        run.add_done_callback(finish)

    def _hand_out(
        self,
        stage: Stage,
        slices: list[CallSlice],
        results: list[Rows | Exception],
        started_s: float,
        ended_s: float,
    ) -> None:
        """Give each call its part of a run's results, and report the run."""
        for piece, result in zip(slices, results, strict=True):
            if isinstance(result, Exception):
                piece.work.fail(result)
                continue
            try:
                piece.work.accept(piece.start, result)
            except Exception as error:  # noqa: BLE001 - such as memory that is short; the others are answered
                piece.work.fail(error)
        rows = sum(piece.stop - piece.start for piece in slices)
        queue_s = tuple(started_s - piece.work.arrived_s for piece in slices if piece.start == 0)
        engine_s = ended_s - started_s
        stage.stats.add(rows=rows, calls=len(slices), queue_s=queue_s, engine_s=engine_s)
        self.on_batch(BatchReport(stage=stage.name, rows=rows, queue_s=queue_s, engine_s=engine_s))
        for piece in slices:
            if piece.work.observe is not None:
                piece.work.observe(
                    SliceReport(
                        stage=stage.name,
                        rows=piece.stop - piece.start,
                        batch_rows=rows,
                        is_first=piece.start == 0,
                        times_s=(piece.work.arrived_s, started_s, ended_s),
                        now_s=self.clock(),
                    )
                )


def _run_batch(stage: Stage, slices: list[CallSlice]) -> list[Rows | Exception]:
    """Run one batch in a lane's thread; each slice gets its results, or the error that it alone causes."""
    if len(slices) == 1:
        return [_run_alone(stage, slices[0])]
    try:
        inputs = zip(*(piece.rows for piece in slices), strict=True)
        results = stage.run(tuple(np.concatenate(arrays) for arrays in inputs))
    except Exception:  # noqa: BLE001 - whatever it is, it is sorted out call by call
        # One bad row must not fail its neighbours: find out whose it is.
        _log.warning("a batch failed, running its calls one by one", exc_info=True)
        return [_run_alone(stage, piece) for piece in slices]
    edges = np.cumsum([piece.stop - piece.start for piece in slices])[:-1]
    return list(zip(*(np.split(array, edges) for array in results), strict=True))


def _run_alone(stage: Stage, piece: CallSlice) -> Rows | Exception:
    try:
        return stage.run(piece.rows)
    except Exception as error:  # noqa: BLE001 - handed to the call that it belongs to
        return error
