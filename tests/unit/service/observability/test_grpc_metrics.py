"""gRPC's own metrics: values fall into their buckets, and the totals of several fronts are one."""

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from convvae_service.observability.grpc_metrics import BYTE_BOUNDS, Distribution, GrpcMetrics, MethodTotals


def page(metrics: GrpcMetrics) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(metrics)
    lines = generate_latest(registry).decode().splitlines()
    pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in pairs}


@pytest.mark.parametrize(
    ("value", "bucket"), [(0, 0), (1, 1), (1024, 1), (1025, 2), (1 << 32, 13), (1 << 33, 14)]
)
def test_a_bound_belongs_to_the_bucket_below_it(value: int, bucket: int) -> None:
    """A value that is equal to a bound counts as at most that bound, and none is too large."""
    distribution = Distribution([0] * (len(BYTE_BOUNDS) + 1))
    distribution.add(value, BYTE_BOUNDS)
    assert [n for n, count in enumerate(distribution.counts) if count] == [bucket]
    assert distribution.sum == value


def test_methods_that_nobody_called_are_not_shown() -> None:
    """The page has rows for what happens, not for what could."""
    metrics = GrpcMetrics()
    metrics.totals_of("a.B/C")
    assert page(metrics) == {}
    metrics.totals_of("a.B/C").started += 1
    assert page(metrics) == {'grpc_server_call_started_total{grpc_method="a.B/C"}': 1}


def test_fronts_are_added_up() -> None:
    """A method that two fronts count has one row for each status, and the sources stay as they are."""
    metrics = GrpcMetrics()
    other = {"a.B/C": MethodTotals(started=5)}
    other["a.B/C"].end("OK", 0.002, sent=10, received=2000)
    other["a.B/C"].end("INTERNAL", 3, sent=0, received=1)
    metrics.add_source(lambda: other)
    own = metrics.totals_of("a.B/C")
    own.started = 2
    own.end("OK", 0.5, sent=20, received=0)
    for _ in range(2):
        shown = page(metrics)
        labels = 'grpc_method="a.B/C",grpc_status="OK"'
        assert shown['grpc_server_call_started_total{grpc_method="a.B/C"}'] == 7
        assert shown[f"grpc_server_call_duration_seconds_count{{{labels}}}"] == 2
        assert shown[f"grpc_server_call_duration_seconds_sum{{{labels}}}"] == 0.502
        assert shown[f'grpc_server_call_duration_seconds_bucket{{{labels},le="0.002"}}'] == 1
        assert shown[f'grpc_server_call_duration_seconds_bucket{{{labels},le="0.5"}}'] == 2
        sizes = f"total_compressed_message_size_bytes_sum{{{labels}}}"
        assert shown[f"grpc_server_call_sent_{sizes}"] == 30
        assert shown[f"grpc_server_call_rcvd_{sizes}"] == 2000
        failed = labels.replace("OK", "INTERNAL")
        assert shown[f"grpc_server_call_duration_seconds_count{{{failed}}}"] == 1
