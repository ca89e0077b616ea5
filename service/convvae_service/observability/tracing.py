"""OpenTelemetry: a span for each call, and inside it spans of its waits and runs. Loaded only when asked for.

gRPC's own instrumentation makes the span of a call, below the caller's where the metadata name one.
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
    """Makes the spans of one server, and hands them to a processor."""

    def __init__(self, processor: SpanProcessor) -> None:
        named = "OTEL_SERVICE_NAME" in os.environ or f"{SERVICE_NAME}=" in os.environ.get(
            "OTEL_RESOURCE_ATTRIBUTES", ""
        )
        # What is given here would beat the environment.
        self._provider = TracerProvider(resource=Resource.create({} if named else {SERVICE_NAME: _SERVICE}))
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("convvae_service")
        self.interceptor: Any = aio_server_interceptor(  # type: ignore[no-untyped-call]
            tracer_provider=self._provider,
            # Health and reflection tell nothing, and the instrumentation fails streams that write.
            filter_=filters.all_of(
                filters.any_of(
                    filters.service_name("convvae.v1.VaeService"),
                    filters.service_name("inference.GRPCInferenceService"),
                ),
                filters.negate(filters.method_name("ModelStreamInfer")),
            ),
        )

    def begin(self) -> Callable[[SliceReport], None] | None:
        """Return what takes the reports of the rows that the present call has run; None outside of a span."""
        span = trace.get_current_span()
        if not span.is_recording():
            return None
        parent = context.get_current()
        call = current_call.get()
        about: dict[str, str | int] = {}
        if call is not None:
            about = {"convvae.model": call.model, "convvae.version": call.version}
            span.set_attributes({**about, "convvae.rows": call.rows, "convvae.request_id": call.request_id})

        def report(piece: SliceReport) -> None:
            # Spans have the time of day; what was measured is told from now backwards.
            now_ns, now_s = time.time_ns(), piece.now_s
            at = [now_ns - round((now_s - then_s) * 1e9) for then_s in piece.times_s]
            attributes = {
                **about,
                "convvae.stage": piece.stage,
                "convvae.rows": piece.rows,
                "convvae.batch_rows": piece.batch_rows,
            }
            spans = [("engine", at[1], at[2])]
            if piece.is_first:
                spans.insert(0, ("queue", at[0], at[1]))
            for name, start_ns, end_ns in spans:
                self._tracer.start_span(name, context=parent, start_time=start_ns, attributes=attributes).end(
                    end_ns
                )

        return report

    def close(self) -> None:
        """Send what is left, and end; a collector that does not answer is not waited for."""
        sending = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        sending.start()
        sending.join(_MAX_CLOSE_S)


def otlp_processor() -> SpanProcessor:
    """Return what sends spans to a collector by OTLP over gRPC, as the OTEL_ variables say."""
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    return BatchSpanProcessor(OTLPSpanExporter())
