"""OpenTelemetry: a span for each call, and inside it spans for its waits and runs.

The span of a call is a child of the caller's span if the metadata name one. This module is imported only if
traces are switched on.
"""

import logging
import os
import re
import threading
import time
from collections.abc import Iterable
from functools import partial
from urllib.parse import unquote

from google.protobuf.descriptor import ServiceDescriptor
from google.rpc import code_pb2
from opentelemetry import context, propagate, trace
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.trace import SpanKind, Status, StatusCode

from convvae_service.batching.report import SliceObserver, SliceReport
from convvae_service.observability.call import Call, no_observer
from convvae_service.printable import printable

__all__ = ["Tracing", "otlp_processor"]

_SERVICE = "convvae-serve"
_MAX_CLOSE_S = 3.0
_MAX_AGENT_CHARS = 200
# The codes that are faults of a server; the others are faults of its caller, as OpenTelemetry defines them.
_FAULTS = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}


class Tracing:
    """Makes the spans of one server, and gives them to a processor. Safe to use from any thread.

    Args:
        processor: Takes the spans that have ended.
        services: The services whose calls have spans. No two have a method of the same name.
    """

    def __init__(self, processor: SpanProcessor, services: Iterable[ServiceDescriptor]) -> None:
        named = "OTEL_SERVICE_NAME" in os.environ or f"{SERVICE_NAME}=" in os.environ.get(
            "OTEL_RESOURCE_ATTRIBUTES", ""
        )
        # A name given here would take precedence over the environment.
        self._provider = TracerProvider(resource=Resource.create({} if named else {SERVICE_NAME: _SERVICE}))
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("convvae_service")
        self._services = {
            method.name: service.full_name
            for service in services
            for method in service.methods
            if not method.client_streaming
        }
        # They warn of each wrong `traceparent` and `baggage`: callers could fill the log.
        for name in ("opentelemetry.trace", "opentelemetry.baggage"):
            logging.getLogger(name).setLevel(logging.ERROR)

    def begin(self, call: Call, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """Start the span of a call, as a child of the caller's span if the metadata name one."""
        if (service := self._services.get(call.method)) is None:
            return
        texts = {key: value for key, value in metadata if isinstance(value, str)}
        attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": call.method}
        if agent := texts.get("user-agent"):
            attributes["rpc.user_agent"] = printable(agent[:_MAX_AGENT_CHARS])
        call.span = self._tracer.start_span(
            f"/{service}/{call.method}",
            propagate.extract(texts, context.Context()),
            kind=SpanKind.SERVER,
            attributes=attributes,
        )
        call.observe = partial(self.observe, call)

    def end(self, call: Call, code: str) -> None:
        """End the span of a call that has ended with `code`, the name of a gRPC status."""
        # The observer and the call hold each other.
        call.observe = no_observer
        span = call.span
        if span is None or not span.is_recording():
            return
        span.set_attributes(
            {
                "rpc.grpc.status_code": code_pb2.Code.Value(code),
                "convvae.request_id": call.request_id,
                **_peer_attributes(call.peer),
            }
        )
        if call.model:
            span.set_attributes({**_model_attributes(call), "convvae.rows": call.rows})
        if code in _FAULTS:
            span.set_status(Status(StatusCode.ERROR, code))
        span.end()

    def observe(self, call: Call) -> SliceObserver | None:
        """Return an observer that makes spans for the runs of a call; None if the call has no span."""
        if call.span is None or not call.span.is_recording():
            return None
        parent = trace.set_span_in_context(call.span, context.Context())
        shared = _model_attributes(call)

        def observe(report: SliceReport) -> None:
            arrived_ns, started_ns, ended_ns = _times_of_day_ns(report)
            attributes = {
                **shared,
                "convvae.stage": report.stage,
                "convvae.rows": report.rows,
                "convvae.batch_rows": report.batch_rows,
            }
            spans = [("engine", started_ns, ended_ns)]
            if report.is_first:
                spans.insert(0, ("queue", arrived_ns, started_ns))
            for name, start_ns, end_ns in spans:
                made = self._tracer.start_span(name, parent, attributes=attributes, start_time=start_ns)
                made.end(end_ns)

        return observe

    def close(self) -> None:
        """Send the remaining spans and stop. Wait at most 3 s for the collector."""
        sending = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        sending.start()
        sending.join(_MAX_CLOSE_S)


def otlp_processor() -> SpanProcessor:
    """Return a processor that sends spans to a collector by OTLP over gRPC, as the OTEL_ variables say."""
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    return BatchSpanProcessor(OTLPSpanExporter())


def _model_attributes(call: Call) -> dict[str, str | int]:
    return {"convvae.model": call.model, "convvae.version": call.version}


def _peer_attributes(peer: str) -> dict[str, str]:
    """Return the address of a caller as OpenTelemetry names its parts; a Unix socket has none."""
    address = re.fullmatch(r"ipv[46]:(.+):(\d+)", unquote(peer.partition(",")[0]))
    if address is None:
        return {}
    ip, port = address.groups()
    name = {"net.peer.name": "localhost"} if ip in ("[::1]", "127.0.0.1") else {}
    return {"net.peer.ip": ip, "net.peer.port": port, **name}


def _times_of_day_ns(report: SliceReport) -> list[int]:
    """Return the times of a report as spans have them: the batcher's clock has another zero."""
    now_ns = time.time_ns()
    return [now_ns - round((report.now_s - then_s) * 1e9) for then_s in report.times_s]
