"""Prometheus metrics of one server. docs/service.md lists the names."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from convvae_service.batching.report import BatchReport

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
        self._queued_bytes = Gauge(
            "convvae_queued_bytes",
            "Bytes of inputs and results admitted and not yet answered",
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

    def watch_queue(self, rows: Callable[[], int], num_bytes: Callable[[], int]) -> None:
        """Read the rows and bytes in the queue from these functions, each time the page is read."""
        self._queued_rows.set_function(rows)
        self._queued_bytes.set_function(num_bytes)

    def show_stuck(self, part: str, stuck: bool) -> None:
        """Show whether a part of the server is stuck."""
        self._stuck.labels(part).set(stuck)

    def count_batch(self, report: BatchReport) -> None:
        """Add one batch."""
        self.batch_rows.labels(report.stage).observe(report.rows)
        self.engine_seconds.labels(report.stage).observe(report.engine_s)
        for queue_s in report.queue_s:
            self.queue_seconds.labels(report.stage).observe(queue_s)
