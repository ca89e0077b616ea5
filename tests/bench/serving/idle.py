"""Seconds until a server of one bundle serves, and the memory that it has before the first call."""

import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.serving.checkout import Checkout
from bench.serving.launch import launched
from bench.serving.processes import resident_mib
from bench.serving.summary import Spread

__all__ = ["measure_idle"]

# The start has ended by then: what it no longer needs is given back.
SETTLE_S = 1.0


def measure_idle(checkouts: list[Checkout], bench_root: Path, *, runs: int) -> dict[str, Any]:
    """Return the spread of `runs` starts of each server, which has its default settings."""
    found: dict[str, tuple[list[float], list[float]]] = {}
    with tempfile.TemporaryDirectory(prefix="convvae-bench-") as folder:
        for checkout in checkouts:
            checkout.publish(Path(folder, checkout.name), bench_root, Checkout.first_graph)
        for _ in range(runs):
            for checkout in checkouts:
                for front in checkout.fronts():
                    models, log = Path(folder, checkout.name), Path(folder, "server.log")
                    with launched(checkout, models, log, front=front, flags=()) as (server, ready_s):
                        time.sleep(SETTLE_S)
                        ready, resident = found.setdefault(server.name, ([], []))
                        ready.append(ready_s)
                        resident.append(resident_mib(server.pid))
    return {
        name: {"ready_s": asdict(Spread.of(ready)), "resident_mib": asdict(Spread.of(resident))}
        for name, (ready, resident) in found.items()
    }
