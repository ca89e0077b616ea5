import logging
import threading
from collections.abc import Iterator

import pytest

pytest.importorskip("opentelemetry.sdk", reason="the extra [tracing] is not installed")

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from convvae.v1 import vae_pb2
from convvae_service.batching.report import SliceReport
from convvae_service.observability.call import Call
from convvae_service.observability.tracing import Tracing
from open_inference import inference_pb2

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{CALLER}-01"
SERVICES = (
    vae_pb2.DESCRIPTOR.services_by_name["VaeService"],
    inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"],
)


class Traces:
    """A tracing whose spans are kept."""

    def __init__(self) -> None:
        self._kept = InMemorySpanExporter()
        self.tracing = Tracing(SimpleSpanProcessor(self._kept), SERVICES)

    def ended(self) -> list[ReadableSpan]:
        return list(self._kept.get_finished_spans())

    def trace(self, call: Call, code: str, *metadata: tuple[str, str | bytes]) -> ReadableSpan:
        """Begin and end a call, and return its span."""
        self.tracing.begin(call, metadata)
        self.tracing.end(call, code)
        return self.ended()[-1]


@pytest.fixture
def traces() -> Iterator[Traces]:
    traces = Traces()
    yield traces
    traces.tracing.close()


def attributes(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


def report(*, is_first: bool) -> SliceReport:
    return SliceReport(
        stage="decode", rows=2, batch_rows=5, is_first=is_first, times_s=(1.0, 2.0, 4.0), now_s=4.5
    )


def test_a_call_is_a_span_of_the_server(traces: Traces) -> None:
    """Its name is the path, and its attributes say what was called, by whom, and with which status."""
    call = Call("Encode", "me-1", peer="ipv4:127.0.0.1:57284", rows=3, model="tiny", version=2)
    span = traces.trace(call, "OK", ("user-agent", "grpc-python/1.85"), ("token-bin", b"\xff"))
    assert (span.name, span.kind) == ("/convvae.v1.VaeService/Encode", SpanKind.SERVER)
    assert span.parent is None
    assert span.status.status_code is StatusCode.UNSET
    assert attributes(span) == {
        "rpc.system": "grpc",
        "rpc.service": "convvae.v1.VaeService",
        "rpc.method": "Encode",
        "rpc.user_agent": "grpc-python/1.85",
        "rpc.grpc.status_code": 0,
        "net.peer.ip": "127.0.0.1",
        "net.peer.port": "57284",
        "net.peer.name": "localhost",
        "convvae.request_id": "me-1",
        "convvae.model": "tiny",
        "convvae.version": 2,
        "convvae.rows": 3,
    }


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("ipv6:%5B::1%5D:80", {"net.peer.ip": "[::1]", "net.peer.port": "80", "net.peer.name": "localhost"}),
        ("ipv6:[::1]:80", {"net.peer.ip": "[::1]", "net.peer.port": "80", "net.peer.name": "localhost"}),
        ("ipv4:10.2.1.1:5,127.0.0.1:6", {"net.peer.ip": "10.2.1.1", "net.peer.port": "5"}),
        ("unix:/tmp/socket", {}),
        ("unix:", {}),
        ("", {}),
        ("ipv4:", {}),
        ("ipv4:1.2.3.4:port", {}),
    ],
)
def test_the_address_of_a_caller(traces: Traces, peer: str, expected: dict[str, str]) -> None:
    """Addresses of the network have their parts; others have none, and break nothing."""
    found = attributes(traces.trace(Call("Encode", "1", peer=peer), "OK"))
    assert {key: value for key, value in found.items() if key.startswith("net.")} == expected


def test_faults_of_the_server_are_errors(traces: Traces) -> None:
    """A wrong request is the caller's fault; the number of the code is that of gRPC."""
    internal = traces.trace(Call("ModelInfer", "1"), "INTERNAL")
    assert internal.name == "/inference.GRPCInferenceService/ModelInfer"
    assert (internal.status.status_code, internal.status.description) == (StatusCode.ERROR, "INTERNAL")
    assert attributes(internal)["rpc.grpc.status_code"] == 13
    assert "convvae.rows" not in attributes(internal)
    wrong = traces.trace(Call("ModelInfer", "1"), "INVALID_ARGUMENT")
    assert wrong.status.status_code is StatusCode.UNSET
    assert attributes(wrong)["rpc.grpc.status_code"] == 3
    assert attributes(traces.trace(Call("ModelInfer", "1"), "CANCELLED"))["rpc.grpc.status_code"] == 1


def test_waits_and_runs_are_inside_the_call(traces: Traces) -> None:
    """They carry the caller's trace on, from any thread, and only the first run has a wait."""
    call = Call("Sample", "1")
    traces.tracing.begin(call, [("traceparent", TRACEPARENT)])
    call.model, call.version, call.rows = "tiny", 1, 4
    observe = call.observe()
    assert observe is not None
    for is_first in (True, False):
        thread = threading.Thread(target=observe, args=(report(is_first=is_first),))
        thread.start()
        thread.join()
    ending = threading.Thread(target=traces.tracing.end, args=(call, "OK"))
    ending.start()
    ending.join()
    # Otherwise the call would hold itself.
    assert call.observe() is None
    *below, whole = traces.ended()
    assert [span.name for span in below] == ["queue", "engine", "engine"]
    assert whole.parent is not None
    assert (f"{whole.parent.trace_id:032x}", f"{whole.parent.span_id:016x}") == (TRACE, CALLER)
    assert whole.context is not None
    lengths_s = []
    for span in below:
        assert span.parent is not None
        assert span.context is not None
        assert (span.parent.span_id, span.context.trace_id) == (whole.context.span_id, int(TRACE, 16))
        assert attributes(span) == {
            "convvae.model": "tiny",
            "convvae.version": 1,
            "convvae.stage": "decode",
            "convvae.rows": 2,
            "convvae.batch_rows": 5,
        }
        assert span.start_time is not None
        assert span.end_time is not None
        lengths_s.append((span.end_time - span.start_time) / 1e9)
    assert lengths_s == pytest.approx([1, 2, 2])


def test_a_caller_that_is_not_sampled_has_no_spans(traces: Traces) -> None:
    """The caller's choice holds for the whole trace."""
    call = Call("Sample", "1")
    traces.tracing.begin(call, [("traceparent", f"{TRACEPARENT[:-1]}0")])
    assert call.observe() is None
    traces.tracing.end(call, "OK")
    assert traces.ended() == []


@pytest.mark.parametrize("method", ["ModelStreamInfer", "Check", ""])
def test_other_methods_have_no_span(traces: Traces, method: str) -> None:
    """Streams and methods of other services are not traced."""
    call = Call(method, "1")
    traces.tracing.begin(call, [("traceparent", TRACEPARENT)])
    assert call.observe() is None
    traces.tracing.end(call, "OK")
    assert traces.ended() == []


@pytest.mark.parametrize(
    "metadata",
    [
        {"traceparent": ""},
        {"traceparent": "x" * 10_000},
        {"traceparent": f"00-{'0' * 32}-{CALLER}-01"},
        {"traceparent": TRACEPARENT, "tracestate": "a" * 511},
        {"traceparent": TRACEPARENT, "tracestate": "=,=" * 200},
        {"traceparent": TRACEPARENT, "tracestate": "a=1," * 64},
        {"baggage": "x" * 9000},
        {"baggage": "nothing,of,the,kind," * 40},
        {"traceparent-bin": b"\xff\x00"},
    ],
)
def test_wrong_trace_headers_are_ignored(
    traces: Traces, caplog: pytest.LogCaptureFixture, metadata: dict[str, str | bytes]
) -> None:
    """The call has a span, and no caller fills the log."""
    with caplog.at_level(logging.DEBUG):
        span = traces.trace(Call("Encode", "1"), "OK", *metadata.items())
    assert span.context is not None
    assert caplog.messages == []
