"""Batches that form while the engine is busy.

Calls wait per stage, in order of arrival. An idle lane takes what waits at once; calls that arrive while all
lanes are busy form the next batch. `sharing` decides how many rows of each call it contains.
"""

import itertools
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType

from convvae_service.batching.pending_call import CallSlice, PendingCall
from convvae_service.batching.report import BatchReport, SliceObserver, SliceReport
from convvae_service.batching.run import deliver, run_batch
from convvae_service.batching.sharing import share
from convvae_service.engine.stages import Rows, Stage
from convvae_service.errors import Overloaded

__all__ = ["Batcher", "RunningBatch"]

_log = logging.getLogger(__name__)

# Maximum number of calls in a queue that are compared for a batch, which takes 0.1 ms.
_MAX_COMPARED = 1024
_SMALL_CALL_ROWS = 16
_SMALL_CALLS_PART = 16
# Maximum mean time of runs in the thread that brings the rows. A caller alone waits for a lane as long.
_SHORT_NS = 250_000
# Time of a lane to wait after an error that is no graph's.
_PAUSE_S = 0.01
# A dict keeps the order and removes from the middle in constant time, as cancelled calls require.
_Queue = dict[PendingCall, None]


@dataclass(eq=False, slots=True)
class RunningBatch:
    """A batch that a lane computes now. `started_s` is by the batcher's clock."""

    stage: str
    rows: int
    started_s: float


@dataclass(kw_only=True)
class Batcher:
    """Runs stages in batches on several lanes, and limits what may wait. Safe to use from any thread.

    Each lane is a thread. It completes the calls of a batch itself, so their callbacks run in it. A short
    call that comes alone runs in the thread that brings it.

    Args:
        lanes: Number of batches that run at the same time.
        max_batch_rows: Maximum number of rows in one batch.
        max_queued_rows: Maximum number of rows of calls that are admitted and not yet answered. Calls of at
            most 16 rows have a sixteenth more: a few large calls must not lock them out.
        max_queue_delay_s: Seconds that an idle lane waits for a batch to fill; 0 never waits.
        on_batch: Called after each run, in the thread of its lane.
        clock: Source of all times here, in seconds.
    """

    lanes: int
    max_batch_rows: int
    max_queued_rows: int
    max_queue_delay_s: float = 0.0
    on_batch: Callable[[BatchReport], None] = lambda _: None
    clock: Callable[[], float] = time.monotonic
    queued_rows: int = field(default=0, init=False)
    _queues: dict[Stage, _Queue] = field(default_factory=dict, init=False)
    _runs: set[RunningBatch] = field(default_factory=set, init=False)
    _threads: list[threading.Thread] = field(default_factory=list, init=False)
    _idle: int = field(default=0, init=False)
    _closed: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        # Guards all of the state above. The condition's own `with` takes twice as long.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)

    def admit(self, *, rows: int) -> "_Admission":
        """Reserve room for a call while a `with` block runs.

        Raises:
            Overloaded: There is no room at present.
        """
        return _Admission(self, rows)

    def start(self) -> None:
        """Start the threads of the lanes. Without this, the first call starts them.

        Raises:
            RuntimeError: The system allows no more threads.
        """
        with self._lock:
            self._start_lanes()

    def submit(
        self, stage: Stage, rows: Rows, observe: SliceObserver | None = None, *, alone: bool = False
    ) -> PendingCall:
        """Put rows into the queue of a stage, and return the future of its results in the same order.

        Args:
            stage: The stage to run.
            rows: Its inputs, with at least one row.
            observe: Called with a report of each run that has rows of this call.
            alone: Whether this thread may run the rows, if nothing else runs and they take little time.
        """
        call = PendingCall(rows, self.clock(), observe, self._forget)
        running = None
        with self._lock:
            if alone and self._is_short(stage, call.num_rows):
                running = RunningBatch(stage.name, call.num_rows, self.clock())
                self._runs.add(running)
            else:
                self._queues.setdefault(stage, {})[call] = None
                self._start_lanes()
                if self._idle:
                    self._changed.notify()
        if running is not None:
            self._run(stage, [call.take(call.num_rows)], running)
        elif self._closed:
            call.cancel()
        return call

    @property
    def runs(self) -> tuple[RunningBatch, ...]:
        """The batches that run now."""
        with self._lock:
            return tuple(self._runs)

    def close(self) -> None:
        """Stop the lanes' threads after their current runs. Calls that still wait are cancelled."""
        with self._lock:
            self._closed = True
            waiting = [call for queue in self._queues.values() for call in queue]
            self._changed.notify_all()
        for call in waiting:
            call.cancel()
        for thread in self._threads:
            thread.join()

    def _is_short(self, stage: Stage, rows: int) -> bool:
        """Return whether nothing else runs or waits, and runs of as many rows took little time so far."""
        if self._runs or self._queues or self._closed or self.max_queue_delay_s:
            return False
        before = stage.stats.by_rows.get(rows)
        return before is not None and rows <= self.max_batch_rows and before.ns <= _SHORT_NS * before.count

    def _start_lanes(self) -> None:
        while len(self._threads) < self.lanes and not self._closed:
            name = f"lane-{len(self._threads)}"
            thread = threading.Thread(target=self._serve, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def _serve(self) -> None:
        """Run one batch after another until the batcher is closed."""
        while not self._closed:
            try:
                if (batch := self._next_batch()) is not None:
                    self._run(*batch)
            except Exception:  # noqa: BLE001 - a lane that ended would leave all later calls waiting
                _log.exception("internal error: a batch failed outside of its graph")
                # The reason may last, as a lack of memory does.
                time.sleep(_PAUSE_S)
            batch = None

    def _next_batch(self) -> tuple[Stage, list[CallSlice], RunningBatch] | None:
        """Wait for a batch that is due and take it; None if the batcher is closed."""
        with self._lock:
            while not self._closed:
                stage, wait_s = self._next_stage()
                if stage is None:
                    self._idle += 1
                    self._changed.wait(wait_s)
                    self._idle -= 1
                elif slices := self._take_batch(stage):
                    running = RunningBatch(stage.name, sum(map(len, slices)), self.clock())
                    self._runs.add(running)
                    return stage, slices, running
        return None

    def _next_stage(self) -> tuple[Stage | None, float | None]:
        """Return the first stage with a batch that is due. Without one, the seconds until one may be due."""
        if not self.max_queue_delay_s:
            return next(iter(self._queues), None), None
        now_s = self.clock()
        due_s = None
        for stage, queue in self._queues.items():
            ready_s = next(iter(queue)).arrived_s + self.max_queue_delay_s
            if ready_s <= now_s or sum(call.num_left for call in queue) >= self.max_batch_rows:
                return stage, None
            due_s = ready_s if due_s is None else min(due_s, ready_s)
        return None, None if due_s is None else due_s - now_s

    def _take_batch(self, stage: Stage) -> list[CallSlice]:
        """Take the next batch out of the stage's queue. It is empty if all compared calls have ended."""
        queue = self._queues[stage]
        waiting: list[PendingCall] = []
        for call in list(itertools.islice(queue, _MAX_COMPARED)):
            # A call that failed or was cancelled may still be in the queue for a moment.
            if call.done:
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
        del self._queues[stage]
        if queue:
            # At the end of the dict, so that the other stages come first.
            self._queues[stage] = queue
            if self._idle:
                self._changed.notify()
        return slices

    def _forget(self, call: PendingCall) -> None:
        """Take a call that is done out of its queue."""
        with self._lock:
            for stage, queue in self._queues.items():
                if call in queue:
                    del queue[call]
                    if not queue:
                        del self._queues[stage]
                    return

    def _run(self, stage: Stage, slices: list[CallSlice], running: RunningBatch) -> None:
        try:
            started_s = self.clock()
            results = run_batch(stage, slices)
            ended_s = self.clock()
            # First the reports: a caller never has an answer that is not counted.
            try:
                self._report(stage, slices, started_s, ended_s)
            except Exception:  # noqa: BLE001 - the callers have their results all the same
                _log.exception("internal error: a batch was not reported")
            deliver(slices, results)
            # The traceback of an error in here has this frame. They must not hold each other.
            del results
        except Exception as error:
            for part in slices:
                part.call.fail(error)
            raise
        finally:
            # After the answers: a lane that is stuck in one of them is a lane that is stuck.
            with self._lock:
                self._runs.discard(running)

    def _report(self, stage: Stage, slices: list[CallSlice], started_s: float, ended_s: float) -> None:
        """Report a run to the stage's statistics, to the metrics and to the observers of its calls."""
        rows = sum(map(len, slices))
        queue_s = tuple([started_s - part.call.arrived_s for part in slices if part.start == 0])
        engine_s = ended_s - started_s
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
                        times_s=(part.call.arrived_s, started_s, ended_s),
                        now_s=self.clock(),
                    )
                )

    def _reserve(self, rows: int) -> None:
        with self._lock:
            more = self.max_queued_rows // _SMALL_CALLS_PART if rows <= _SMALL_CALL_ROWS else 0
            if self.queued_rows + rows > self.max_queued_rows + more:
                raise Overloaded(
                    "the server's queue is full: retry after the stated delay", retry_delay_s=0.1
                )
            self.queued_rows += rows

    def _release(self, rows: int) -> None:
        with self._lock:
            self.queued_rows -= rows


class _Admission:
    """Room in the queue, reserved for the duration of a `with` block."""

    __slots__ = ("_batcher", "_rows")

    def __init__(self, batcher: Batcher, rows: int) -> None:
        self._batcher = batcher
        self._rows = rows

    def __enter__(self) -> None:
        self._batcher._reserve(self._rows)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._batcher._release(self._rows)
