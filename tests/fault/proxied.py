"""Replicas that are replaced under load behind a proxy: results/FRONT/proxied.json.

    python tests/fault/proxied.py [--front grpcio|native]

Two replicas, a proxy of docs/load-balancing.md, and one client in a process of its own with its default
retries. Each replica is stopped by SIGTERM and started again, round and round; then each is killed.
"""

import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from convvae import RetryConfig
from fault.rolling import describe, roll
from support.figure import measure_to_files
from support.proxy import PROXIES, program
from support.tiny_bundle import publish_tiny

LEAST_CALLS = 20_000


def measure(front: str, least_calls: int = LEAST_CALLS, replacements: int = 4) -> dict[str, Any]:
    """Return the figures of so many replacements and calls for each proxy that is installed, and signal."""
    found: dict[str, Any] = {}
    met = {}
    with tempfile.TemporaryDirectory() as folder:
        publish_tiny(Path(folder))
        for proxy in PROXIES:
            if program(proxy) is None:
                found[proxy] = "not installed"
                continue
            found[proxy] = {}
            for number in (signal.SIGTERM, signal.SIGKILL):
                report = roll(
                    models=Path(folder),
                    front=front,
                    number=number,
                    retries=RetryConfig().retries,
                    follow_health=False,
                    least_calls=least_calls,
                    replacements=replacements,
                    proxy=proxy,
                )
                found[proxy][number.name.lower()] = describe(report, replacements)
                met[f"{proxy}, {number.name}: every call is OK"] = (
                    report.lost == 0 and report.total >= least_calls
                )
    return {
        "figure": "calls through a proxy that are lost while two replicas are replaced in turn",
        "met": met,
        **found,
        "target_lost": 0,
    }


if __name__ == "__main__":
    measure_to_files(__file__, __doc__, measure)
