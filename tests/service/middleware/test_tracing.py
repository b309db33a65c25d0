"""Traces, as a collector gets them from the real process."""

import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.conftest import STOP_S, Service, start_service
from tests.service.answers import PICTURE, predict

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
STAGES = ["decode", "queue", "inference", "encode"]


class Collector(ThreadingHTTPServer):
    """Takes spans over OTLP, as any OpenTelemetry collector does."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Receiver)
        self.spans: list[Span] = []
        self.services: set[str] = set()

    def wait_for(self, wanted: Callable[[Span], bool], count: int) -> list[Span]:
        """So many spans of a kind, by their beginning."""
        deadline = time.monotonic() + STOP_S
        while len(found := [span for span in self.spans if wanted(span)]) < count:
            assert time.monotonic() < deadline, f"got {[span.name for span in self.spans]}"
            time.sleep(0.02)
        assert len(found) == count
        return sorted(found, key=lambda span: span.start_time_unix_nano)


class Receiver(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        assert self.path == "/v1/traces"
        sent = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"])))
        for resource in sent.resource_spans:
            named = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
            self.server.services.add(named["service.name"])
            for scope in resource.scope_spans:
                self.server.spans.extend(scope.spans)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def traced(collector: Collector) -> Iterator[Service]:
    endpoint = f"http://127.0.0.1:{collector.server_address[1]}"
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "50"}
    with start_service("--traces", "true", env=env) as service:
        yield service


def attributes(span: Span) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "") for pair in span.attributes}


def test_a_request_has_a_span_with_one_for_each_stage(traced: Service, collector: Collector) -> None:
    traceparent = f"00-{TRACE}-{PARENT}-01"
    answer = traced.client.post(
        "/predict", content=PICTURE, headers={"traceparent": traceparent, "tracestate": "gate=7"}
    )
    assert answer.status_code == 200
    server, *stages = collector.wait_for(lambda span: span.trace_id.hex() == TRACE, 5)
    assert collector.services == {"stn-serve"}
    assert (server.name, server.kind) == ("POST /predict", Span.SPAN_KIND_SERVER)
    assert server.parent_span_id.hex() == PARENT
    assert server.trace_state == "gate=7"
    assert attributes(server) == {
        "http.request.method": "POST",
        "http.route": "/predict",
        "http.response.status_code": 200,
        "url.path": "/predict",
        "url.scheme": "http",
        "stn.request_id": answer.headers["x-request-id"],
        "stn.model": "digits",
        "stn.version": answer.json()["model"]["version"],
    }
    assert [stage.name for stage in stages] == STAGES
    assert all(stage.parent_span_id == server.span_id for stage in stages)
    times = answer.json()["timings_ms"]
    for stage in stages:
        assert server.start_time_unix_nano <= stage.start_time_unix_nano <= stage.end_time_unix_nano
        assert stage.end_time_unix_nano <= server.end_time_unix_nano
        took_ms = (stage.end_time_unix_nano - stage.start_time_unix_nano) / 1e6
        assert took_ms == pytest.approx(times[stage.name], abs=0.1)


def test_a_request_without_a_context_begins_a_trace_of_its_own(traced: Service, collector: Collector) -> None:
    mine = {"x-request-id": "without-context", "traceparent": "00-nonsense-01"}
    traced.client.post("/predict", content=PICTURE, headers=mine)
    (span,) = collector.wait_for(lambda span: attributes(span).get("stn.request_id") == "without-context", 1)
    assert span.parent_span_id == b""
    assert len(span.trace_id) == 16


def test_a_trace_that_is_not_sampled_is_not_sent(traced: Service, collector: Collector) -> None:
    trace = TRACE[::-1]
    traced.client.post("/predict", content=PICTURE, headers={"traceparent": f"00-{trace}-{PARENT}-00"})
    traced.client.get("/models", headers={"x-request-id": "after"})
    collector.wait_for(lambda span: attributes(span).get("stn.request_id") == "after", 1)
    assert [span.name for span in collector.spans if span.trace_id.hex() == trace] == []


def test_a_refused_request_says_why_and_a_path_that_is_not_there_is_no_name(
    traced: Service, collector: Collector
) -> None:
    traced.client.post("/predict", content=PICTURE[:40], headers={"x-request-id": "cut"})
    traced.client.get("/nowhere/else", headers={"x-request-id": "lost"})
    cut, lost = collector.wait_for(lambda span: attributes(span).get("stn.request_id") in ("cut", "lost"), 2)
    assert attributes(cut)["error.type"] == "invalid_image"
    assert attributes(cut)["http.response.status_code"] == 400
    assert lost.name == "GET"


def test_every_protocol_names_its_route(traced: Service, collector: Collector) -> None:
    traced.client.post("/v2/models/digits/infer", content=b"{}", headers={"x-request-id": "open"})
    traced.client.get("/v2/models/digits/ready", headers={"x-request-id": "ready"})
    spans = collector.wait_for(lambda span: attributes(span).get("stn.request_id") in ("open", "ready"), 2)
    assert {span.name for span in spans} == {"POST /v2/models/{name}/infer", "GET /v2/models/{name}/ready"}


def test_every_picture_of_a_batch_has_its_stages(traced: Service, collector: Collector) -> None:
    files = [("images", PICTURE)] * 3
    traced.client.post("/predict/batch", files=files, headers={"x-request-id": "three"})
    (server,) = collector.wait_for(lambda span: attributes(span).get("stn.request_id") == "three", 1)
    stages = collector.wait_for(lambda span: span.parent_span_id == server.span_id, 12)
    assert sorted(stage.name for stage in stages) == sorted(STAGES * 3)


def test_without_a_collector_it_serves_and_stops_like_any_other(collector: Collector) -> None:
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    with start_service("--traces", "true", env=env) as service:
        predict(service)
        service.process.terminate()
        assert service.process.wait(STOP_S) == 0
