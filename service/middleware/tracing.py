"""Traces: a server span for every request with child spans for the stages of its pictures.

The module needs the extra ``otel`` and is imported only if traces are on. OpenTelemetry's own variables set the
collector, the sampling and the name of the service (``OTEL_EXPORTER_OTLP_ENDPOINT``, ``OTEL_TRACES_SAMPLER``,
``OTEL_SERVICE_NAME``): https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

import time
from collections.abc import Iterator

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode, format_trace_id, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import ASGIApp, Receive, Scope, Send

from service import __version__
from service.redaction import Redactor
from service.request_context import AnsweredPicture, RequestContext, route_of

CONTEXT = (b"traceparent", b"tracestate")
MOST_PICTURES = 16
"""The number of pictures of one request that have spans of their own."""


class TracingMiddleware:
    """Traces requests. Inside of `service.middleware.request_id.RequestIdMiddleware`."""

    def __init__(self, app: ASGIApp, tracer: "Tracer", redactor: Redactor) -> None:
        self._app = app
        self._tracer = tracer
        self._redactor = redactor
        self._propagator = TraceContextTextMapPropagator()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = scope["headers"]
        given = {name.decode(): value.decode("latin-1") for name, value in headers if name in CONTEXT}
        carrier = {name: value for name, value in given.items() if self._redactor.is_clean(value)}
        span = self._tracer.start(scope["method"], self._propagator.extract(carrier))
        context: RequestContext = scope["request_context"]
        context.trace = format_trace_id(span.get_span_context().trace_id)
        path = self._redactor.redact(scope["path"], headers)
        try:
            await self._app(scope, receive, send)
        finally:
            if span.is_recording():
                describe(span, scope, path, context)
                for answered in context.answered[:MOST_PICTURES]:
                    self._tracer.trace_picture(span, answered)
            span.end()


class Tracer:
    """Makes the spans of one application and sends them, from `open` to `close`."""

    def __init__(self) -> None:
        self._provider: TracerProvider | None = None

    def open(self) -> TracerProvider:
        """Start to send spans, unless already started."""
        if self._provider is None:
            named = OTELResourceDetector().detect().attributes.get("service.name", "stn-serve")
            resource = Resource.create({"service.name": named, "service.version": __version__})
            self._provider = TracerProvider(resource=resource)
            self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        return self._provider

    def close(self) -> None:
        """Send the remaining spans and stop."""
        if self._provider is not None:
            self._provider.shutdown()
            self._provider = None

    def start(self, name: str, parent: Context) -> Span:
        """Start the span of a request."""
        return self.open().get_tracer("service", __version__).start_span(name, parent, SpanKind.SERVER)

    def trace_picture(self, request: Span, answered: AnsweredPicture) -> None:
        """Add the spans of an answered picture to that of its ``request``."""
        tracer = self.open().get_tracer("service", __version__)
        context = set_span_in_context(request)
        for name, started, ended in stages(answered):
            attributes = {"stn.batch_size": answered.batch_size} if name == "inference" else {}
            span = tracer.start_span(name, context, attributes=attributes, start_time=since_epoch(started))
            span.end(since_epoch(ended))


def describe(span: Span, scope: Scope, path: str, context: RequestContext) -> None:
    """Describe a request on ``span`` in OpenTelemetry's semantic conventions, without its query and headers.

    ``path`` is its path without keys.
    """
    route = route_of(context, scope)
    if route is not None:  # unknown paths would create any number of names
        span.update_name(f"{scope['method']} {route}")
        span.set_attribute("http.route", route)
    span.set_attributes(
        {
            "http.request.method": scope["method"],
            "http.response.status_code": context.status,
            "url.path": path,
            "url.scheme": scope["scheme"],
            "stn.request_id": context.id,
        }
    )
    if context.model is not None:
        span.set_attribute("stn.model", context.model)
    if context.version is not None:
        span.set_attribute("stn.version", context.version)
    if context.error is not None:
        span.set_attribute("error.type", context.error)
    if context.status >= 500:
        span.set_status(StatusCode.ERROR)


def stages(answered: AnsweredPicture) -> Iterator[tuple[str, float, float]]:
    """Yield name, start and end of the stages of a picture, as times of `time.perf_counter`."""
    decode, queue, inference, encode = (milliseconds / 1000 for milliseconds in answered.timings)
    decoded, queued = answered.started + decode, answered.queued_s
    if queued:
        yield "queue", answered.started - queued, answered.started
    queue -= queued
    yield "decode", answered.started, decoded
    yield "queue", decoded, decoded + queue
    yield "inference", decoded + queue, decoded + queue + inference
    yield "encode", answered.ended - encode, answered.ended


def since_epoch(moment: float) -> int:
    """Convert a time of `time.perf_counter` to nanoseconds since the epoch."""
    return time.time_ns() - int((time.perf_counter() - moment) * 1e9)
