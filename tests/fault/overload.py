"""Ten times more calls than the service can answer, for 30 s: results/FRONT/overload.json.

    python tests/fault/overload.py [--front grpcio|native]

The engine takes 20 ms for a batch of at most 64 rows, and a call has 64: capacity is 50 calls a second. At
capacity 2 calls are always in flight, which is the least that keeps the engine busy: one runs, one waits.
Then 10 times the capacity so measured begins, whether or not other calls have ended. The server queues at
most 256 rows, which is 80 ms of work. Latency counts from when a call was due, on the client's side.

The engine is the bottleneck here, as it is with a real model. Calls so small and so many that the event loop
cannot refuse them as fast as they come wait before they are refused.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from fault.slow_server import SlowServer
from support.figure import measure_to_files
from support.load import Load, Report, RunningLoad
from support.observed import observed
from support.tiny_bundle import publish_tiny

ROWS, BATCH_ROWS, QUEUED_ROWS = 64, 64, 256
FLAGS = (
    "--max-batch-rows", str(BATCH_ROWS),
    "--max-rows-per-call", str(BATCH_ROWS),
    "--max-queued-rows", str(QUEUED_ROWS),
)  # fmt: skip
TIMES_CAPACITY = 10
MOST_P99_RATIO = 3.0
MOST_HEALTH_MS = 100.0
MOST_RECOVERY_S = 1.0
# A queue is full of calls within a fraction of a second; what grows after the first third is a leak.
MOST_GROWTH_KIB = 8192
WINDOW_S = 0.25
FULL_SPEED = 0.95


def measure(front: str, seconds: float = 30.0, capacity_seconds: float = 10.0) -> dict[str, Any]:
    """Return the figures of an overload of `seconds`."""
    with tempfile.TemporaryDirectory() as folder:
        publish_tiny(Path(folder))
        with observed(SlowServer, Path(folder), "--front", front, *FLAGS) as server:
            loads: list[RunningLoad] = []

            def begin(**words: Any) -> RunningLoad:
                loads.append(RunningLoad(Load(target=server.target, rows=ROWS, **words)))
                return loads[-1]

            try:
                at_capacity = begin(in_flight=2, seconds=capacity_seconds).report()
                before_kib = server.resident_kib()
                capacity = len(at_capacity.answered_s) / (at_capacity.ended_s - at_capacity.began_s)
                health = begin(via="health", pause_s=0.02)
                over = begin(rate=TIMES_CAPACITY * capacity, in_flight=2000, connections=2, seconds=seconds)
                resident_kib = []
                while over.running:
                    resident_kib.append(server.resident_kib())
                    time.sleep(0.2)
                overloaded = over.report()
                # From here on as at capacity; the client's own start is not the server's.
                after = begin(in_flight=2, seconds=3.0).report()
                healthy = health.stop()
            finally:
                for load in loads:
                    load.kill()
            pending = server.wait_idle()
    recovery_s = seconds_to_full_speed(after, capacity)
    growth_kib = max(resident_kib) - max(resident_kib[: len(resident_kib) // 3] or [before_kib])
    ratio = overloaded.percentile_ms(99) / at_capacity.percentile_ms(99)
    refused = overloaded.codes.get("RESOURCE_EXHAUSTED", 0)
    offered = overloaded.total / (overloaded.ended_s - overloaded.began_s)
    met = {
        "every refusal is RESOURCE_EXHAUSTED with RetryInfo": refused == overloaded.lost > 0
        and overloaded.ended_without_advice == 0,
        "ten times the capacity was offered": offered >= 0.95 * TIMES_CAPACITY * capacity,
        "p99 of accepted calls within 3 times that at capacity": ratio <= MOST_P99_RATIO,
        "health answers within 100 ms at p99": healthy.percentile_ms(99) <= MOST_HEALTH_MS
        and healthy.lost == 0,
        "memory is bounded": growth_kib < MOST_GROWTH_KIB,
        "full speed within 1 s": recovery_s is not None and recovery_s <= MOST_RECOVERY_S,
        "nothing stays pending": not any(pending.values()),
    }
    return {
        "figure": "ten times more calls than capacity",
        "met": met,
        "seconds": seconds,
        "capacity_calls_per_s": round(capacity, 1),
        "offered_calls_per_s": round(offered, 1),
        "not_begun_by_the_client": overloaded.skipped,
        "answered_calls_per_s": round(len(overloaded.answered_s) / seconds, 1),
        "codes": overloaded.codes,
        "refused_without_retry_info": overloaded.ended_without_advice,
        "accepted_ms": {
            "at_capacity": spread(at_capacity),
            "overloaded": spread(overloaded),
            "p99_ratio": round(ratio, 2),
            "target_p99_ratio": MOST_P99_RATIO,
        },
        "health_ms": {**spread(healthy), "lost": healthy.lost, "target_p99": MOST_HEALTH_MS},
        "resident_kib": {
            "before": before_kib,
            "most_in_the_first_third": max(resident_kib[: len(resident_kib) // 3] or [before_kib]),
            "most": max(resident_kib),
        },
        "seconds_to_full_speed": recovery_s,
        "target_seconds_to_full_speed": MOST_RECOVERY_S,
        "settings": " ".join(FLAGS),
        "errors": overloaded.errors,
    }


def spread(report: Report) -> dict[str, float]:
    """Return percentiles of the answered calls' latencies."""
    return {f"p{percent}": report.percentile_ms(percent) for percent in (50, 99)}


def seconds_to_full_speed(report: Report, capacity: float) -> float | None:
    """Return the end of the first window in which 95 % of capacity was answered; None if there was none.

    Counted from the first call after the overload.
    """
    answered_s = np.asarray(report.answered_s) - report.began_s
    for start_s in np.arange(0, report.ended_s - report.began_s - WINDOW_S, 0.05):
        count = np.count_nonzero((answered_s >= start_s) & (answered_s < start_s + WINDOW_S))
        if count >= FULL_SPEED * capacity * WINDOW_S:
            return round(float(start_s) + WINDOW_S, 2)
    return None


if __name__ == "__main__":
    measure_to_files(__file__, __doc__, measure)
