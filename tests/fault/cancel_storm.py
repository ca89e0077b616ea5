"""Calls that give up before they can be answered, beside one that waits: results/FRONT/cancel_storm.json.

    python tests/fault/cancel_storm.py [--front grpcio|native]

40,000 calls with deadlines of 4 to 18 ms, on 8 connections of their own, against an engine that needs 20 ms.
Memory is read with nothing pending: after the first half, and after the second.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from fault.slow_server import SlowServer
from support.figure import measure_to_files
from support.load import Load, RunningLoad
from support.observed import observed
from support.tiny_bundle import publish_tiny

MOST_GROWTH_KIB = 1024
# gRPC still hands over calls that have been given up, and the service gives memory back every 10 s.
SETTLE_S = 12.0


def measure(front: str, calls: int = 40_000, settle_s: float = SETTLE_S) -> dict[str, Any]:
    """Return the figures of a storm of `calls`."""
    with tempfile.TemporaryDirectory() as folder:
        publish_tiny(Path(folder))
        with observed(SlowServer, Path(folder), "--front", front) as server:
            waiting = RunningLoad(Load(target=server.target, in_flight=2))
            try:
                storm = Load(
                    target=server.target,
                    calls=calls // 2,
                    connections=8,
                    in_flight=32,
                    timeout_s=(0.004, 0.018),
                )
                before_kib = server.resident_kib()
                first = RunningLoad(storm).report()
                time.sleep(settle_s)
                middle_kib = server.resident_kib()
                second = RunningLoad(storm).report()
                time.sleep(settle_s)
                after_kib = server.resident_kib()
                waited = waiting.stop()
            finally:
                waiting.kill()
            pending = server.wait_idle()
            counted = server.calls("Encode")
            errors = [line for line in server.lines if line.get("level") == "error"]
    met = {
        "the waiting client loses none": waited.lost == 0 and waited.total > 0,
        "nothing stays pending": not any(pending.values()),
        "memory grows under 1 MiB in the second half": after_kib - middle_kib < MOST_GROWTH_KIB,
        "no error in the log": not errors,
        "no call of the storm is answered": not first.codes.get("OK") and not second.codes.get("OK"),
    }
    return {
        "figure": "calls with deadlines too short to be met, beside a client that waits",
        "met": met,
        "storm_calls": first.total + second.total,
        "storm_codes": {code: first.codes.get(code, 0) + second.codes.get(code, 0) for code in first.codes},
        "storm_seconds": round(first.ended_s - first.began_s + second.ended_s - second.began_s, 1),
        "calls_that_reached_the_server": counted,
        "waiting_client": {"calls": waited.total, "lost": waited.lost, "p99_ms": waited.percentile_ms(99)},
        "errors_in_the_log": len(errors),
        "first_errors": errors[:3],
        "pending_at_the_end": pending,
        "resident_kib": {"before": before_kib, "half": middle_kib, "end": after_kib},
        "growth_of_the_second_half_kib": after_kib - middle_kib,
        "target_growth_kib": MOST_GROWTH_KIB,
    }


if __name__ == "__main__":
    measure_to_files(__file__, __doc__, measure)
