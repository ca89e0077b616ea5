"""Single rows beside a bulk client: results/FRONT/fairness.json.

    python tests/fault/fairness.py [--front grpcio|native]

The engine takes 20 ms for a batch of at most 64 rows. One client sends single rows, one after another: first
alone, then beside another that keeps 2 calls of 1,000 rows in flight, 16 batches each. Then the reverse:
calls of 256 rows, one after another, beside 128 clients with single rows, who alone could fill every batch.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from fault.overload import spread
from fault.slow_server import RUN_S, SlowServer
from support.figure import measure_to_files
from support.load import Load, RunningLoad
from support.observed import observed
from support.tiny_bundle import publish_tiny

BULK_ROWS = 1000
CROWD, LONG_ROWS = 128, 256
# As a share of the rows that the engine does.
LEAST_SHARE = 0.2
ROWS = 'convvae_batch_rows_sum{stage="encode"}'
ENGINE_ROWS_PER_S = 64 / RUN_S


def measure(front: str, seconds: float = 20.0) -> dict[str, Any]:
    """Return the figures of so many seconds alone, and as many beside the bulk client."""
    with tempfile.TemporaryDirectory() as folder:
        publish_tiny(Path(folder))
        with observed(SlowServer, Path(folder), "--front", front) as server:
            alone = RunningLoad(Load(target=server.target, seconds=seconds)).report()
            bulk = RunningLoad(Load(target=server.target, rows=BULK_ROWS, in_flight=2))
            try:
                beside = RunningLoad(Load(target=server.target, seconds=seconds)).report()
                bulky = bulk.stop()
            finally:
                bulk.kill()
            crowd = RunningLoad(Load(target=server.target, in_flight=CROWD, connections=4))
            try:
                before = server.metrics()[ROWS]
                long = RunningLoad(Load(target=server.target, rows=LONG_ROWS, seconds=seconds)).report()
                num_rows = server.metrics()[ROWS] - before
                crowded = crowd.stop()
            finally:
                crowd.kill()
    share = long.total * LONG_ROWS / (long.ended_s - long.began_s) / ENGINE_ROWS_PER_S
    ratio = beside.percentile_ms(99) / alone.percentile_ms(99)
    return {
        "figure": "single-row latency beside a client with calls of 1,000 rows, and alone",
        "met": {
            "no call is lost": not any(each.lost for each in (alone, beside, bulky, long, crowded)),
            "a long call gets on beside a crowd": share >= LEAST_SHARE,
        },
        "p99_ratio": round(ratio, 2),
        "single_row_ms": {"alone": spread(alone), "beside": spread(beside)},
        "single_row_calls": {"alone": alone.total, "beside": beside.total},
        "bulk": {
            "calls": bulky.total,
            "rows_per_s": round(bulky.total * BULK_ROWS / (bulky.ended_s - bulky.began_s)),
            **spread(bulky),
        },
        "long_calls_beside_a_crowd": {
            "calls": long.total,
            "share_of_the_engine": round(share, 3),
            # The engine waits while its lane writes replies.
            "share_of_the_rows_that_were_run": round(long.total * LONG_ROWS / num_rows, 3),
            "target_share": LEAST_SHARE,
            **spread(long),
        },
        "crowd": {"clients": CROWD, "calls": crowded.total, **spread(crowded)},
        "seconds": seconds,
    }


if __name__ == "__main__":
    measure_to_files(__file__, __doc__, measure)
