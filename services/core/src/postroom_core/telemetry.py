"""One OpenTelemetry trace per message: reception begins it, every attempt of delivery is a span of it. Off unless an OTLP endpoint is set.

The context travels in the envelope and is stored with the message as a W3C traceparent, so an attempt hours later still belongs to the trace. Spans
carry ids, counts and reply codes; never an address, a header or a body.
"""

import contextlib
from collections.abc import Mapping

from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PROPAGATOR = TraceContextTextMapPropagator()
_NOTHING = contextlib.nullcontext(trace.INVALID_SPAN)


class _Tracing:
    """`tracer` is None while tracing is off: a message then costs no span at all."""

    tracer: trace.Tracer | None = None


def configure(service: str, environment: Mapping[str, str]) -> bool:
    """Call once at the start; whether tracing is on. The exporter reads the standard OTEL_* variables itself."""
    if not any(environment.get(name) for name in ENDPOINTS):
        return False
    # Imported here: a service without tracing does not pay for the exporter.
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": f"postroom-{service}"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    _Tracing.tracer = trace.get_tracer("postroom")
    return True


def span(name: str, parent: str = "", *, message_id: str = "") -> contextlib.AbstractContextManager[trace.Span]:
    """A span around a block, of the trace whose stored traceparent is `parent`, else of the current one."""
    if _Tracing.tracer is None:
        return _NOTHING
    context = _PROPAGATOR.extract({"traceparent": parent}) if parent else None
    attributes = {"postroom.message_id": message_id} if message_id else None
    return _Tracing.tracer.start_as_current_span(name, context=context, attributes=attributes)


def traceparent() -> str:
    """The current span as a W3C traceparent, "" when tracing is off."""
    if _Tracing.tracer is None:
        return ""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return carrier.get("traceparent", "")
