"""A server that is attacked: its memory, the honest callers beside the attack, and its end."""

import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc

from support.load import Load, Report, RunningLoad
from support.observed import ObservedServer
from support.resident import peak_kib, reset_peak

__all__ = ["CAP_MB", "Outcome", "Target", "attacked"]

MOST_PEAK_MB = 600.0
MOST_LEFT_MB = 60.0
MOST_HONEST_MS = 250.0
MOST_CALL_S = 60.0
SETTLE_S = 5.0
# A server that needs more is ended, because the machine has other work.
CAP_MB = 3000.0
CAP_INTERVAL_S = 0.02
PAUSE_S = 0.05
AROUND_S = 0.5
MOST_LINES = 2000

Via = Literal["sample", "file"]


@dataclass(kw_only=True)
class Outcome:
    """The end of an attack, as its callers see it.

    Attributes:
        sent_bytes: Bytes that were sent, without those of TCP.
        codes: Calls by status code.
        facts: Other figures for the result.
    """

    sent_bytes: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    facts: dict[str, Any] = field(default_factory=dict)

    def add(self, other: "Outcome") -> None:
        """Add the figures of another outcome."""
        self.sent_bytes += other.sent_bytes
        self.codes += other.codes
        self.facts |= other.facts


class AttackedServer(ObservedServer):
    """A server that is ended when its memory passes a cap, and whose log is counted."""

    def __init__(self, *args: Any, **words: Any) -> None:
        self.log_bytes = 0
        self.passed_cap = False
        super().__init__(*args, **words)
        threading.Thread(target=self._cap, daemon=True).start()

    def _is_kept(self, line: str) -> bool:
        # The lines of the honest callers are not the attack's.
        if '"method": "Sample"' in line:
            return False
        self.log_bytes += len(line.encode())
        return super()._is_kept(line) and len(self.lines) + len(self.noise) < MOST_LINES

    def _cap(self) -> None:
        while self.process.poll() is None:
            try:
                if _mb(self.resident_kib()) > CAP_MB:
                    self.passed_cap = True
                    self.process.kill()
            except (OSError, ValueError):
                return
            time.sleep(CAP_INTERVAL_S)


class Target:
    """One server, its honest callers, and the attacks on it, one after another.

    Args:
        server: The server, which is ready.
        honest: The calls of the honest callers; each has a connection and a process of its own.
        words: Further words of their `Load`, such as a token.
    """

    def __init__(self, server: AttackedServer, honest: tuple[Via, ...], **words: Any) -> None:
        self.server = server
        self.address = server.target
        self.attacks: dict[str, dict[str, Any]] = {}
        load: dict[str, Any] = {
            "target": self.address,
            "pause_s": PAUSE_S,
            "timeout_s": (MOST_CALL_S, MOST_CALL_S),
        }
        self._callers = {via: RunningLoad(Load(via=via, **load, **words)) for via in honest}
        self._spans: dict[str, tuple[float, float]] = {}
        self._reports: dict[Via, Report] = {}
        self.idle_mb = 0.0
        self.note_idle()

    def note_idle(self) -> None:
        """Take the memory that the server has in a moment as that of an idle server."""
        time.sleep(4 * AROUND_S)
        self.idle_mb = self.resident_mb() or 0.0

    def resident_mb(self) -> float | None:
        """Return the memory of the process, None if it has ended."""
        try:
            return _mb(self.server.resident_kib())
        except (OSError, ValueError):
            return None

    def observe(
        self,
        name: str,
        attack: Callable[..., Outcome],
        *args: Any,
        callers: int = 1,
        repeat_s: float = 0.0,
        **words: Any,
    ) -> dict[str, Any]:
        """Attack again and again for `repeat_s`, wait until the memory is back, and note the figures.

        Args:
            name: Name of the attack in the result.
            attack: Attacks HOST:PORT once, in a bounded time; it gets `args` and `words` too.
            args: See `attack`.
            callers: Threads that attack at once.
            repeat_s: No attack begins later; 0 attacks once.
            words: See `attack`.
        """
        if self.server.process.poll() is not None:
            self.attacks[name] = {"not_run": "the server has ended"}
            return self.attacks[name]
        pid = self.server.process.pid
        reset_peak(pid)
        log_bytes = self.server.log_bytes
        outcome = Outcome()
        began_s = time.monotonic()
        while True:
            outcome.add(_at_once(callers, partial(attack, self.address, *args, **words)))
            if time.monotonic() >= began_s + repeat_s:
                break
        ended_s = time.monotonic()
        found: dict[str, Any] = {
            "seconds": round(ended_s - began_s, 2),
            "sent_bytes": outcome.sent_bytes,
            "codes": dict(outcome.codes.most_common()),
            **outcome.facts,
        }
        found |= self._settled(ended_s)
        found["log_bytes"] = self.server.log_bytes - log_bytes
        self._spans[name] = (began_s, ended_s)
        self.attacks[name] = found
        return found

    def _settled(self, ended_s: float) -> dict[str, Any]:
        """Wait until the memory is back, for at most 5 s, and return the figures of the memory."""
        left_mb = self.resident_mb()
        while left_mb is not None and time.monotonic() < ended_s + SETTLE_S:
            if left_mb <= self.idle_mb + MOST_LEFT_MB and time.monotonic() > ended_s + AROUND_S:
                break
            time.sleep(0.05)
            left_mb = self.resident_mb()
        if left_mb is None:
            return {"server_ended": True, "passed_the_cap": self.server.passed_cap}
        return {
            "peak_mb": _mb(peak_kib(self.server.process.pid)),
            "left_mb": left_mb,
            "settled_s": round(time.monotonic() - ended_s, 2),
        }

    def finish(self, authority: bytes = b"") -> dict[str, Any]:
        """Stop the honest callers, ask for liveness, drain the server, and return the result.

        Args:
            authority: PEM of the authority that has signed the server's certificate; b"" for plain text.
        """
        for via, caller in self._callers.items():
            self._reports[via] = caller.stop()
        for name, (began_s, ended_s) in self._spans.items():
            for via, report in self._reports.items():
                self.attacks[name][f"honest_{via}"] = _during(report, began_s, ended_s + AROUND_S)
        alive = self.server.process.poll() is None and _is_live(self.address, authority)
        began_s = time.monotonic()
        try:
            exit_code: int | None = self.server.stop()
        except (AssertionError, subprocess.TimeoutExpired):
            exit_code = None
        for found in self.attacks.values():
            found["missed"] = _missed(found, self.idle_mb)
        whole = {via: _during(report, 0.0, float("inf")) for via, report in self._reports.items()}
        return {
            "met": {
                "no attack passes 600 MB": self._all("peak_mb"),
                "the memory is back within 5 s": self._all("left_mb"),
                "the honest caller waits at most 250 ms at p99": self._all("p99_ms"),
                "no honest call is lost": not any(each["lost"] for each in whole.values()),
                "liveness stays SERVING, and the server drains": alive and exit_code == 0,
            },
            "attacks": self.attacks,
            "idle_mb": self.idle_mb,
            "honest": whole,
            "drain_s": round(time.monotonic() - began_s, 2),
            "exit_code": exit_code,
            "lines_that_are_no_json": self.server.noise[:5],
        }

    def close(self) -> None:
        """End everything that was started."""
        for caller in self._callers.values():
            caller.kill()
        if self.server.process.poll() is None:
            self.server.process.kill()
        # It closes the pipe of the log too, if the server has ended before.
        self.server.wait()

    def _all(self, figure: str) -> bool:
        return bool(self.attacks) and all(
            figure not in found["missed"] and "the server has ended" not in found["missed"]
            for found in self.attacks.values()
        )


@contextmanager
def attacked(
    front: str, models: Path, *flags: str, honest: tuple[Via, ...] = ("sample",), **words: Any
) -> Iterator[Target]:
    """Run a server and its honest callers for the length of a `with` block."""
    server = AttackedServer(models, "--front", front, *flags)
    target = None
    try:
        server.wait_for("serving")
        target = Target(server, honest, **words)
        yield target
    finally:
        if target is not None:
            target.close()
        elif server.process.poll() is None:
            server.process.kill()
            server.wait()


def _at_once(callers: int, attack: Callable[[], Outcome]) -> Outcome:
    """Attack from so many threads at the same time, and return their outcomes as one."""
    outcomes: list[Outcome] = []
    threads = [threading.Thread(target=lambda: outcomes.append(attack())) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    whole = Outcome()
    for outcome in outcomes:
        whole.add(outcome)
    return whole


def _missed(found: dict[str, Any], idle_mb: float) -> list[str]:
    """Return the figures of an attack that are above their limits."""
    if "left_mb" not in found:
        return ["the server has ended"]
    limits = {"peak_mb": MOST_PEAK_MB, "left_mb": idle_mb + MOST_LEFT_MB}
    missed = [name for name, most in limits.items() if found[name] > most]
    if found.get("honest_sample", {}).get("p99_ms", 0.0) > MOST_HONEST_MS:
        missed.append("p99_ms")
    return missed


def _during(report: Report, began_s: float, ended_s: float) -> dict[str, Any]:
    """Return the figures of the calls that ended in a span of time."""
    pairs = zip(report.answered_s, report.latencies_ms, strict=True)
    latencies_ms = [latency for at_s, latency in pairs if began_s <= at_s <= ended_s]
    found: dict[str, Any] = {
        "calls": len(latencies_ms),
        "lost": sum(began_s <= at_s <= ended_s for at_s in report.lost_s),
    }
    if latencies_ms:
        p50, p99 = np.percentile(latencies_ms, (50, 99))
        found |= {"p50_ms": round(p50, 1), "p99_ms": round(p99, 1), "max_ms": round(max(latencies_ms), 1)}
    return found


def _is_live(address: str, authority: bytes) -> bool:
    plain = grpc.insecure_channel
    if authority:
        plain = partial(grpc.secure_channel, credentials=grpc.ssl_channel_credentials(authority))
    with plain(address) as channel:
        request = health_pb2.HealthCheckRequest(service="liveness")
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=5)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _mb(kib: int) -> float:
    return round(kib * 1024 / 1e6, 1)
