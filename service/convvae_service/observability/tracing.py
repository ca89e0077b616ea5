"""OpenTelemetry: a span for each call, and inside it spans for its waits and runs.

OpenTelemetry's instrumentation of gRPC makes the span of the call, as a child of the caller's span if the
metadata name one. This module is imported only if traces are switched on.
"""

import os
import threading
import time
from collections.abc import Callable
from typing import Any

from opentelemetry import context, trace
from opentelemetry.instrumentation.grpc import aio_server_interceptor, filters
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

from convvae_service.batching.report import SliceReport
from convvae_service.observability.call import current_call

__all__ = ["Tracing", "otlp_processor"]

_SERVICE = "convvae-serve"
_MAX_CLOSE_S = 3.0


class Tracing:
    """Makes the spans of one server, and gives them to a processor."""

    def __init__(self, processor: SpanProcessor) -> None:
        named = "OTEL_SERVICE_NAME" in os.environ or f"{SERVICE_NAME}=" in os.environ.get(
            "OTEL_RESOURCE_ATTRIBUTES", ""
        )
        # A name given here would take precedence over the environment.
        self._provider = TracerProvider(resource=Resource.create({} if named else {SERVICE_NAME: _SERVICE}))
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("convvae_service")
        self.interceptor: Any = aio_server_interceptor(  # type: ignore[no-untyped-call]
            tracer_provider=self._provider,
            # Spans of health and reflection are useless, and the instrumentation breaks streams that write.
            filter_=filters.all_of(
                filters.any_of(
                    filters.service_name("convvae.v1.VaeService"),
                    filters.service_name("inference.GRPCInferenceService"),
                ),
                filters.negate(filters.method_name("ModelStreamInfer")),
            ),
        )

    def observe_call(self) -> Callable[[SliceReport], None] | None:
        """Return an observer that makes spans for the runs of the current call; None outside of a span."""
        span = trace.get_current_span()
        if not span.is_recording():
            return None
        parent = context.get_current()
        shared: dict[str, str | int] = {}
        if (call := current_call.get()) is not None:
            shared = {"convvae.model": call.model, "convvae.version": call.version}
            span.set_attributes({**shared, "convvae.rows": call.rows, "convvae.request_id": call.request_id})

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


def _times_of_day_ns(report: SliceReport) -> list[int]:
    """Return the times of a report as spans have them: the batcher's clock has another zero."""
    now_ns = time.time_ns()
    return [now_ns - round((report.now_s - then_s) * 1e9) for then_s in report.times_s]
