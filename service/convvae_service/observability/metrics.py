"""Prometheus metrics of one server. docs/operations.md lists the names."""

from collections.abc import Callable, Iterator
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from convvae_service.batching.report import BatchReport
from convvae_service.observability.grpc_metrics import GrpcMetrics
from convvae_service.observability.logs import log_handler

__all__ = ["Metrics"]

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """The metrics of one server, in their own registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.calls = Counter(
            "convvae_calls",
            "Calls answered, by method and status code",
            ["method", "code"],
            registry=self.registry,
        )
        self.rows = Counter(
            "convvae_rows", "Rows of calls answered with OK, by method", ["method"], registry=self.registry
        )
        self.call_seconds = Histogram(
            "convvae_call_seconds", "Seconds from the arrival of a call to its answer", ["method"],
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.in_flight = Gauge("convvae_calls_in_flight", "Calls in progress", registry=self.registry)
        self.queue_seconds = Histogram(
            "convvae_queue_seconds", "Seconds that a call waited for a lane, by stage", ["stage"],
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.engine_seconds = Histogram(
            "convvae_engine_seconds", "Seconds that one batch ran, by stage", ["stage"],
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.batch_rows = Histogram(
            "convvae_batch_rows",
            "Rows in one batch, by stage",
            ["stage"],
            buckets=_ROWS,
            registry=self.registry,
        )
        self._queued_rows = Gauge(
            "convvae_queued_rows", "Rows admitted and not yet answered", registry=self.registry
        )
        self._pending_bytes = Gauge(
            "convvae_pending_bytes",
            "Bytes that calls hold, from the arrival of a request until its answer is sent",
            registry=self.registry,
        )
        self.model_info = Gauge(
            "convvae_model_info",
            "1 for each loaded model version",
            ["model", "version", "precision", "provider"],
            registry=self.registry,
        )
        self.load_failures = Counter(
            "convvae_load_failures",
            "Model versions that could not be loaded",
            ["model"],
            registry=self.registry,
        )
        self.reloads = Counter(
            "convvae_reloads",
            "Model versions loaded, failed and unloaded after the start",
            ["model", "result"],
            registry=self.registry,
        )
        self.watch_errors = Counter(
            "convvae_watch_errors", "Listings of the model repository that failed", registry=self.registry
        )
        self._stuck = Gauge("convvae_stuck", "1 for a part that is stuck", ["part"], registry=self.registry)
        self.registry.register(_DroppedLogLines())
        self.grpc = GrpcMetrics()
        self.registry.register(self.grpc)
        # Memory, processor time and open files.
        ProcessCollector(registry=self.registry)
        # To find the child of some labels takes longer than to count. These labels have few values.
        self._calls_of = cache(self.calls.labels)
        self._rows_of = cache(self.rows.labels)
        self._call_seconds_of = cache(self.call_seconds.labels)
        self._queue_seconds_of = cache(self.queue_seconds.labels)
        self._engine_seconds_of = cache(self.engine_seconds.labels)
        self._batch_rows_of = cache(self.batch_rows.labels)

    def watch_calls(self, in_flight: Callable[[], int]) -> None:
        """Read the number of calls in progress from this function, each time the page is read."""
        self.in_flight.set_function(in_flight)

    def watch_load(self, queued_rows: Callable[[], int], pending_bytes: Callable[[], int]) -> None:
        """Read queued rows and pending bytes from these functions, each time the page is read."""
        self._queued_rows.set_function(queued_rows)
        self._pending_bytes.set_function(pending_bytes)

    def watch_certificate(self, expires_s: Callable[[], float]) -> None:
        """Read the Unix time at which the certificate expires from this function, where there is one."""
        expiry = Gauge(
            "convvae_certificate_expiry_timestamp_seconds",
            "Unix time at which the certificate in use expires",
            registry=self.registry,
        )
        expiry.set_function(expires_s)

    def show_stuck(self, part: str, stuck: bool) -> None:
        """Show whether a part of the server is stuck."""
        self._stuck.labels(part).set(stuck)

    def count_call(self, method: str, code: str, seconds: float, rows: int) -> None:
        """Add one call that has ended. Its rows count if `code` is OK."""
        self._calls_of(method, code).inc()
        self._call_seconds_of(method).observe(seconds)
        if code == "OK":
            self._rows_of(method).inc(rows)

    def count_expired(self, method: str) -> None:
        """Add one call whose deadline had passed on arrival."""
        self._calls_of(method, "DEADLINE_EXCEEDED").inc()

    def count_batch(self, report: BatchReport) -> None:
        """Add one batch."""
        self._batch_rows_of(report.stage).observe(report.rows)
        self._engine_seconds_of(report.stage).observe(report.engine_s)
        observe_queue_s = self._queue_seconds_of(report.stage).observe
        for queue_s in report.queue_s:
            observe_queue_s(queue_s)


class _DroppedLogLines(Collector):
    """Reads the number of dropped lines from the log of this process."""

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Return the number as a counter."""
        handler = log_handler()
        yield CounterMetricFamily(
            "convvae_log_lines_dropped",
            "Lines of the log that could not be written",
            value=handler.writer.dropped if handler else 0,
        )
