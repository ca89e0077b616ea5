"""Traces of a server on this event loop, kept in memory."""

from pathlib import Path

import grpc
import pytest

pytest.importorskip("opentelemetry.sdk", reason="the extra [tracing] is not installed")

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from convvae.v1 import vae_pb2 as pb
from convvae.v1 import vae_pb2_grpc
from convvae_service.observability import tracing
from support.local_server import started
from support.wire import TIMEOUT_S

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
METADATA = (("traceparent", f"00-{TRACE}-{CALLER}-01"), ("x-request-id", "me-1"))


async def test_a_call_has_spans_of_its_waits_and_runs(
    tiny_root: Path, monkeypatch: pytest.MonkeyPatch, front: str
) -> None:
    """The caller's trace goes on in the call's span, with queue and engine below, and what they ran."""
    kept = InMemorySpanExporter()
    monkeypatch.setattr(tracing, "otlp_processor", lambda: SimpleSpanProcessor(kept))
    flags = ("--front", front, "--tracing", "--max-batch-rows", "2")
    async with (
        started(tiny_root, *flags) as (_, target),
        grpc.aio.insecure_channel(target) as channel,
    ):
        stub = vae_pb2_grpc.VaeServiceStub(channel)
        await stub.Sample(pb.SampleRequest(count=3), timeout=TIMEOUT_S, metadata=METADATA)
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.Sample(pb.SampleRequest(count=-1), timeout=TIMEOUT_S)
    *ended, whole, refused = kept.get_finished_spans()
    # Two threads end them in any order.
    below = sorted(ended, key=lambda span: span.start_time or 0)
    assert [span.name for span in below] == ["queue", "engine", "engine"]
    for span in (whole, refused):
        assert (span.name, span.kind) == ("/convvae.v1.VaeService/Sample", SpanKind.SERVER)
        assert attributes(span).items() >= {
            ("rpc.system", "grpc"),
            ("rpc.service", "convvae.v1.VaeService"),
            ("rpc.method", "Sample"),
            ("net.peer.ip", "127.0.0.1"),
            ("net.peer.name", "localhost"),
        }
        assert str(attributes(span)["rpc.user_agent"]).startswith("grpc-python")
        assert str(attributes(span)["net.peer.port"]).isdecimal()
    assert whole.parent is not None
    assert (f"{whole.parent.trace_id:032x}", f"{whole.parent.span_id:016x}") == (TRACE, CALLER)
    assert refused.parent is None
    assert attributes(refused)["rpc.grpc.status_code"] == 3
    assert attributes(whole).items() >= {
        ("rpc.grpc.status_code", 0),
        ("convvae.model", "tiny"),
        ("convvae.version", 1),
        ("convvae.rows", 3),
        ("convvae.request_id", "me-1"),
    }
    assert whole.resource.attributes["service.name"] == "convvae-serve"
    assert whole.start_time is not None
    for span, rows in zip(below, (2, 2, 1), strict=True):
        assert span.parent is not None
        assert whole.context is not None
        assert span.parent.span_id == whole.context.span_id
        assert attributes(span) == {
            "convvae.model": "tiny",
            "convvae.version": 1,
            "convvae.stage": "decode",
            "convvae.rows": rows,
            "convvae.batch_rows": rows,
        }
        assert span.start_time is not None
        assert span.end_time is not None
        # The wall clock may be set meanwhile; a second is far more than this call takes.
        assert whole.start_time - 1e9 < span.start_time <= span.end_time


def attributes(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


@pytest.mark.parametrize(
    ("environ", "traced"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
async def test_the_standard_variables_switch_traces(
    tiny_root: Path, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], traced: bool
) -> None:
    """An endpoint asks for traces, the variables that forbid them win, and without any there are none."""
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_SDK_DISABLED", "OTEL_TRACES_EXPORTER"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    kept = InMemorySpanExporter()
    monkeypatch.setattr(tracing, "otlp_processor", lambda: SimpleSpanProcessor(kept))
    async with started(tiny_root) as (server, _):
        assert (server.parts.tracing is not None) is traced
