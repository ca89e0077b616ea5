"""gRPC's own metrics of a server: of gRFC A66, with OpenTelemetry's names for Prometheus.

They are counted by the fronts, so they have every call: also those of health and reflection, and those that
are refused before the service sees them.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

__all__ = [
    "BYTE_BOUNDS",
    "OTHER",
    "SECOND_BOUNDS",
    "Distribution",
    "GrpcMetrics",
    "MethodTotals",
    "StatusTotals",
]

# The name that all methods which the server does not have share: callers choose theirs.
OTHER = "other"
SECOND_BOUNDS = (
    0, 0.00001, 0.00005, 0.0001, 0.0003, 0.0006, 0.0008,
    0.001, 0.002, 0.003, 0.004, 0.005, 0.006, 0.008, 0.01, 0.013, 0.016, 0.02, 0.025, 0.03, 0.04, 0.05, 0.065,
    0.08, 0.1, 0.13, 0.16, 0.2, 0.25, 0.3, 0.4, 0.5, 0.65, 0.8, 1, 2, 5, 10, 20, 50, 100,
)  # fmt: skip
BYTE_BOUNDS = (
    0, 1024, 2048, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864, 268435456, 1073741824,
    4294967296,
)  # fmt: skip


@dataclass(slots=True)
class Distribution:
    """How many values are at most each bound and above the one before, and above the last one."""

    counts: list[int]
    sum: float = 0.0

    def add(self, value: float, bounds: Sequence[float]) -> None:
        """Add a value."""
        self.counts[bisect_left(bounds, value)] += 1
        self.sum += value

    def join(self, other: "Distribution") -> None:
        """Add the values of another distribution."""
        self.counts = [own + more for own, more in zip(self.counts, other.counts, strict=True)]
        self.sum += other.sum


@dataclass(slots=True)
class StatusTotals:
    """The calls of one method that ended with one status: seconds, and bytes of all their messages."""

    seconds: Distribution = field(default_factory=lambda: Distribution([0] * (len(SECOND_BOUNDS) + 1)))
    sent: Distribution = field(default_factory=lambda: Distribution([0] * (len(BYTE_BOUNDS) + 1)))
    received: Distribution = field(default_factory=lambda: Distribution([0] * (len(BYTE_BOUNDS) + 1)))

    def join(self, other: "StatusTotals") -> None:
        """Add the calls of other totals."""
        self.seconds.join(other.seconds)
        self.sent.join(other.sent)
        self.received.join(other.received)


@dataclass(slots=True)
class MethodTotals:
    """The calls of one method: how many were started, and those that have ended by their status.

    It has no lock: one thread counts.
    """

    started: int = 0
    ended: dict[str, StatusTotals] = field(default_factory=dict)

    def end(self, status: str, seconds: float, *, sent: int, received: int) -> None:
        """Count a call that has ended. `status` is the name of its status."""
        totals = self.ended.get(status)
        if totals is None:
            totals = self.ended[status] = StatusTotals()
        totals.seconds.add(seconds, SECOND_BOUNDS)
        totals.sent.add(sent, BYTE_BOUNDS)
        totals.received.add(received, BYTE_BOUNDS)

    def join(self, other: "MethodTotals") -> None:
        """Add the calls of other totals."""
        self.started += other.started
        for status, totals in list(other.ended.items()):
            self.ended.setdefault(status, StatusTotals()).join(totals)


Totals = Mapping[str, MethodTotals]


class GrpcMetrics(Collector):
    """Shows the totals of all fronts of a server."""

    def __init__(self) -> None:
        self._own: dict[str, MethodTotals] = {}
        self._sources: list[Callable[[], Totals]] = [lambda: self._own]

    def totals_of(self, method: str) -> MethodTotals:
        """Return the totals of a method, such as `convvae.v1.VaeService/Encode`, for a front to count in."""
        return self._own.setdefault(method, MethodTotals())

    def add_source(self, read: Callable[[], Totals]) -> None:
        """Show also the totals that `read` returns, each time they are shown."""
        self._sources.append(read)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of the methods that were called."""
        totals = self._joined()
        started = CounterMetricFamily(
            "grpc_server_call_started", "Calls that were started, by method", labels=["grpc_method"]
        )
        for method, calls in totals.items():
            started.add_metric([method], calls.started)
        yield started
        ended = [
            (method, status, found)
            for method, calls in totals.items()
            for status, found in sorted(calls.ended.items())
        ]
        yield _histogram(
            "grpc_server_call_duration_seconds",
            "Seconds from the arrival of a call to its end",
            SECOND_BOUNDS,
            ((method, status, found.seconds) for method, status, found in ended),
        )
        yield _histogram(
            "grpc_server_call_sent_total_compressed_message_size_bytes",
            "Bytes of all replies of a call, compressed, without the headers",
            BYTE_BOUNDS,
            ((method, status, found.sent) for method, status, found in ended),
        )
        yield _histogram(
            "grpc_server_call_rcvd_total_compressed_message_size_bytes",
            "Bytes of all requests of a call, compressed, without the headers",
            BYTE_BOUNDS,
            ((method, status, found.received) for method, status, found in ended),
        )

    def _joined(self) -> Totals:
        joined: dict[str, MethodTotals] = {}
        for read in self._sources:
            for method, totals in list(read().items()):
                if totals.started:
                    joined.setdefault(method, MethodTotals()).join(totals)
        return dict(sorted(joined.items()))


def _histogram(
    name: str, text: str, bounds: Sequence[float], values: Iterable[tuple[str, str, Distribution]]
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, text, labels=["grpc_method", "grpc_status"])
    names = [*(f"{bound:g}" if bound < 1 else str(bound) for bound in bounds), "+Inf"]
    for method, status, found in values:
        counts = accumulate(found.counts)
        family.add_metric([method, status], list(zip(names, counts, strict=True)), found.sum)
    return family
