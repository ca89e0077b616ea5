import os

import pytest
from prometheus_client import generate_latest

from convvae_service.batching.report import BatchReport
from convvae_service.observability import metrics as module
from convvae_service.observability.logs import LogHandler
from convvae_service.observability.metrics import Metrics


def page(metrics: Metrics) -> dict[str, float]:
    """Return the metrics by name and labels."""
    lines = generate_latest(metrics.registry).decode().splitlines()
    pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in pairs}


def test_a_call_counts_once() -> None:
    """Calls by code, seconds of all calls, rows of calls with OK alone."""
    metrics = Metrics()
    metrics.count_call("Encode", "OK", 0.004, 3)
    metrics.count_call("Encode", "OK", 0.006, 4)
    metrics.count_call("Encode", "NOT_FOUND", 3, 100)
    metrics.count_call("Sample", "CANCELLED", 70, 1)
    shown = page(metrics)
    assert shown['convvae_calls_total{code="OK",method="Encode"}'] == 2
    assert shown['convvae_calls_total{code="NOT_FOUND",method="Encode"}'] == 1
    assert shown['convvae_calls_total{code="CANCELLED",method="Sample"}'] == 1
    assert shown['convvae_rows_total{method="Encode"}'] == 7
    assert 'convvae_rows_total{method="Sample"}' not in shown
    assert shown['convvae_call_seconds_bucket{le="0.005",method="Encode"}'] == 1
    assert shown['convvae_call_seconds_bucket{le="0.01",method="Encode"}'] == 2
    assert shown['convvae_call_seconds_count{method="Encode"}'] == 3
    assert shown['convvae_call_seconds_sum{method="Encode"}'] == pytest.approx(3.01)
    assert shown['convvae_call_seconds_bucket{le="60.0",method="Sample"}'] == 0


def test_a_batch_counts_once() -> None:
    """Rows and engine time of the batch, and the wait of each call in it."""
    metrics = Metrics()
    metrics.count_batch(BatchReport(stage="encode", rows=5, queue_s=(0.001, 0.2), engine_s=0.03))
    shown = page(metrics)
    assert shown['convvae_batch_rows_sum{stage="encode"}'] == 5
    assert shown['convvae_engine_seconds_sum{stage="encode"}'] == pytest.approx(0.03)
    assert shown['convvae_queue_seconds_count{stage="encode"}'] == 2
    assert shown['convvae_queue_seconds_sum{stage="encode"}'] == pytest.approx(0.201)


def test_calls_in_flight_are_read_when_the_page_is() -> None:
    """The gauge shows the number of that moment."""
    metrics = Metrics()
    numbers = [1, 2]
    metrics.watch_calls(numbers.pop)
    assert page(metrics)["convvae_calls_in_flight"] == 2
    assert page(metrics)["convvae_calls_in_flight"] == 1


def test_dropped_lines_of_the_log_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page shows how many lines the log of the process has lost; 0 without a log."""
    metrics = Metrics()
    assert page(metrics)["convvae_log_lines_dropped_total"] == 0
    fd = os.open("/dev/full", os.O_WRONLY)
    handler = LogHandler(fd, as_text=False)
    handler.writer.write("lost\n")
    handler.flush()
    monkeypatch.setattr(module, "log_handler", lambda: handler)
    assert page(metrics)["convvae_log_lines_dropped_total"] == 1
    handler.close()
    os.close(fd)
