"""Large calls that give up almost at once, beside one that is patient: results/FRONT/hasty_storm.json.

    python tests/fault/hasty_storm.py [--front grpcio|native]

40,000 calls of 64 images of 28x28x1 with deadlines of 0.5 to 10 ms, on 8 connections, against an engine that
needs 4 ms for each batch of 64, as the reference encoder does on two cores. A front that reads calls only
between two runs of the engine has thousands of them in memory, and its patient callers wait behind them.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from convvae_service.bundle import ImageShape
from fault.overload import spread
from fault.slow_server import SlowServer
from support.figure import measure_to_files
from support.load import Load, RunningLoad
from support.observed import observed
from support.tiny_bundle import publish_tiny

SHAPE = ImageShape(height=28, width=28, channels=1)
ROWS = 64
RUN_S = "0.004"
# The service had 130 MB before it had two fronts.
MAX_RESIDENT_KIB = 150 * 1024
LEAST_ANSWERED_PER_S = 10.0


def measure(front: str, calls: int = 40_000) -> dict[str, Any]:
    """Return the figures of a storm of `calls`."""
    with tempfile.TemporaryDirectory() as folder:
        publish_tiny(Path(folder), shape=SHAPE)
        flags = ("--front", front, "--max-batch-rows", str(ROWS))
        with observed(SlowServer, Path(folder), *flags, environ={"RUN_S": RUN_S}) as server:
            common: dict[str, Any] = {"target": server.target, "shape": SHAPE.as_tuple}
            before_kib = server.resident_kib()
            patient = RunningLoad(Load(**common))
            storm = RunningLoad(
                Load(**common, calls=calls, rows=ROWS, connections=8, in_flight=16, timeout_s=(0.0005, 0.01))
            )
            try:
                resident_kib = [before_kib]
                while storm.running:
                    resident_kib.append(server.resident_kib())
                    time.sleep(0.05)
                hasty, waited = storm.report(), patient.stop()
            finally:
                storm.kill()
                patient.kill()
            pending = server.wait_idle()
            counted = server.calls("Encode")
            errors = [line for line in server.lines if line.get("level") == "error"]
            noise = list(server.noise)
    seconds = hasty.ended_s - hasty.began_s
    return {
        "figure": "calls of 64 rows with deadlines of 0.5 to 10 ms, beside a patient caller of single rows",
        "met": {
            "the patient caller loses none": waited.lost == 0,
            "the patient caller gets on": waited.total / seconds >= LEAST_ANSWERED_PER_S,
            "memory stays under 150 MiB": max(resident_kib) < MAX_RESIDENT_KIB,
            "nothing stays pending": not any(pending.values()),
            "no error in the log": not errors and not noise,
        },
        "storm_calls": hasty.total,
        "storm_codes": hasty.codes,
        "storm_seconds": round(seconds, 1),
        "calls_that_reached_the_server": counted,
        "patient_caller": {"calls": waited.total, "lost": waited.lost, **spread(waited)},
        "resident_kib": {"before": before_kib, "most": max(resident_kib), "end": resident_kib[-1]},
        "pending_at_the_end": pending,
        "errors_in_the_log": len(errors),
        "first_errors": errors[:3],
        "noise": noise[:20],
    }


if __name__ == "__main__":
    measure_to_files(__file__, __doc__, measure)
