"""Traces: a server span for every request, and in it spans for the decoding, queue, inference and encoding of pictures.

Imported only where traces are asked for, as it needs the extra ``otel``. Where spans go, which requests are sampled and
what the service is called there is said by OpenTelemetry's own variables (``OTEL_EXPORTER_OTLP_ENDPOINT``,
``OTEL_TRACES_SAMPLER``, ``OTEL_SERVICE_NAME``): https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

import time
from collections.abc import Iterator

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode, format_trace_id, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import ASGIApp, Receive, Scope, Send

from service import __version__
from service.request_context import Answered, RequestContext, route_of

CONTEXT = (b"traceparent", b"tracestate")
MOST_PICTURES = 16
"""Of one request, that have spans of their own."""


class Tracing:
    """``app``, whose requests are traced; within `service.middleware.access_log.Access`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        named = OTELResourceDetector().detect().attributes.get("service.name", "stn-serve")
        self._provider = TracerProvider(
            resource=Resource.create({"service.name": named, "service.version": __version__})
        )
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("service", __version__)
        self._propagator = TraceContextTextMapPropagator()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        carrier = {name.decode(): value.decode("latin-1") for name, value in scope["headers"] if name in CONTEXT}
        parent = self._propagator.extract(carrier)
        span = self._tracer.start_span(scope["method"], parent, SpanKind.SERVER)
        exchange: RequestContext = scope["exchange"]
        exchange.trace = format_trace_id(span.get_span_context().trace_id)
        try:
            await self._app(scope, receive, send)
        finally:
            if span.is_recording():
                describe(span, scope, exchange)
                for answered in exchange.answered[:MOST_PICTURES]:
                    self._trace_picture(span, answered)
            span.end()

    def close(self) -> None:
        """Send what has not been sent yet."""
        self._provider.shutdown()

    def _trace_picture(self, request: Span, answered: Answered) -> None:
        context = set_span_in_context(request)
        for name, started, ended in stages(answered):
            attributes = {"stn.batch_size": answered.batch_size} if name == "inference" else {}
            span = self._tracer.start_span(name, context, attributes=attributes, start_time=since_epoch(started))
            span.end(since_epoch(ended))


def describe(span: Span, scope: Scope, exchange: RequestContext) -> None:
    """Say on ``span`` what a request was, in OpenTelemetry's semantic conventions; nothing of its query or headers."""
    route = route_of(exchange, scope)
    if route is not None:  # paths that clients make up would make names without number
        span.update_name(f"{scope['method']} {route}")
        span.set_attribute("http.route", route)
    span.set_attributes(
        {
            "http.request.method": scope["method"],
            "http.response.status_code": exchange.status,
            "url.path": scope["path"],
            "url.scheme": scope["scheme"],
            "stn.request_id": exchange.id,
        }
    )
    if exchange.model is not None:
        span.set_attribute("stn.model", exchange.model)
    if exchange.version is not None:
        span.set_attribute("stn.version", exchange.version)
    if exchange.error is not None:
        span.set_attribute("error.type", exchange.error)
    if exchange.status >= 500:
        span.set_status(StatusCode.ERROR)


def stages(answered: Answered) -> Iterator[tuple[str, float, float]]:
    """Name, beginning and end of all that was done for a picture, in the seconds of `time.perf_counter`."""
    decode, queue, inference, encode = (milliseconds / 1000 for milliseconds in answered.timings)
    decoded, held = answered.started + decode, answered.held_s
    if held:
        yield "queue", answered.started - held, answered.started
    queue -= held
    yield "decode", answered.started, decoded
    yield "queue", decoded, decoded + queue
    yield "inference", decoded + queue, decoded + queue + inference
    yield "encode", answered.ended - encode, answered.ended


def since_epoch(moment: float) -> int:
    """Nanoseconds since 1970 of a time of `time.perf_counter`."""
    return time.time_ns() - int((time.perf_counter() - moment) * 1e9)
