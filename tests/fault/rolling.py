"""Replicas that are replaced under load from a balancing client: results/FRONT/rolling.json.

    python tests/fault/rolling.py [--front grpcio|native]

Two replicas, one client in a process of its own that takes them in turn. First each is stopped by SIGTERM and
started again, round and round, with the client's retries off: once with `follow_health`, which has the
target, and once without, for comparison. Then each is killed, with the client's default retries.
"""

import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from convvae import RetryConfig
from support.figure import measure_to_files
from support.load import Load, Report, RunningLoad
from support.observed import ObservedServer
from support.proxy import proxied
from support.tiny_bundle import publish_tiny

LEAST_CALLS = 20_000
DRAIN_DELAY_S = "1"
# The client connects again within 5 s; a replica is replaced when the other answers its calls.
CONNECT_S = 20.0
MOST_SECONDS = 240.0


def measure(
    front: str, least_calls: int = LEAST_CALLS, replacements: int = 6, compare: bool = True
) -> dict[str, Any]:
    """Return the figures of so many replacements and at least so many calls for each signal."""
    with tempfile.TemporaryDirectory() as folder:
        publish_tiny(Path(folder))
        common: dict[str, Any] = {
            "models": Path(folder),
            "front": front,
            "least_calls": least_calls,
            "replacements": replacements,
        }
        drained = roll(number=signal.SIGTERM, retries=0, follow_health=True, **common)
        blind = roll(number=signal.SIGTERM, retries=0, follow_health=False, **common) if compare else None
        retries = RetryConfig().retries
        killed = roll(number=signal.SIGKILL, retries=retries, follow_health=False, **common)
    met = {
        "SIGTERM, retries off, follow_health: every call is OK": drained.lost == 0
        and drained.total >= least_calls,
        "SIGKILL, retries on: every call is OK": killed.lost == 0 and killed.total >= least_calls,
    }
    return {
        "figure": "calls that are lost while two replicas are replaced in turn",
        "met": met,
        "sigterm": describe(drained, replacements),
        "sigterm_without_follow_health": describe(blind, replacements) if blind else None,
        "sigkill": describe(killed, replacements),
        "target_lost": 0,
        "drain_delay_s": float(DRAIN_DELAY_S),
    }


def describe(report: Report, replacements: int) -> dict[str, Any]:
    """Return what a report says of a roll."""
    return {
        "replaced": replacements,
        "calls": report.total,
        "lost": report.lost,
        "codes": report.codes,
        "p99_ms": report.percentile_ms(99),
        "worst_ms": round(max(report.latencies_ms), 1),
        "seconds": round(report.ended_s - report.began_s, 1),
        "errors": report.errors,
    }


def roll(
    *,
    models: Path,
    front: str,
    number: signal.Signals,
    retries: int,
    follow_health: bool,
    least_calls: int,
    replacements: int,
    proxy: str = "",
) -> Report:
    """Replace the replicas in turn while a client makes so many calls or more, through a proxy or without."""
    servers = [start(models, front, "127.0.0.1:0") for _ in range(2)]
    load: RunningLoad | None = None
    stack = ExitStack()
    try:
        addresses = [server.target for server in servers]
        direct = f"ipv4:{','.join(addresses)}"
        target = stack.enter_context(proxied(proxy, addresses)) if proxy else direct
        load = RunningLoad(
            Load(
                target=target,
                via="client",
                in_flight=8,
                retries=retries,
                follow_health=follow_health,
                at_least=least_calls,
                seconds=MOST_SECONDS,
            )
        )
        for replaced in range(replacements):
            index = replaced % 2
            wait_for_calls(servers[1 - index])
            code = servers[index].stop(number)
            assert code == (0 if number is signal.SIGTERM else -number), code
            servers[index] = start(models, front, addresses[index])
        return load.stop()
    finally:
        if load is not None:
            load.kill()
        stack.close()
        for server in servers:
            server.stop()


def wait_for_calls(server: ObservedServer) -> None:
    """Wait until the client calls this replica."""
    deadline_s = time.monotonic() + CONNECT_S
    while not server.calls("Encode") and time.monotonic() < deadline_s:
        time.sleep(0.1)


def start(models: Path, front: str, address: str) -> ObservedServer:
    """Start a replica, and return when it serves."""
    server = ObservedServer(models, "--front", front, "--address", address, "--drain-delay-s", DRAIN_DELAY_S)
    try:
        server.wait_for("serving")
    except BaseException:
        server.stop()
        raise
    return server


if __name__ == "__main__":
    measure_to_files(__file__, __doc__, measure)
