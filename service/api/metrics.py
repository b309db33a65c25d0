"""GET /metrics: the counts of all processes (docs/operate/metrics.md)."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from service.api.errors import ErrorRoute
from service.inference.engine import Engine
from service.logging import LogWriter
from service.metrics.exposition import families
from service.metrics.multiprocess import Figures, SharedMetrics
from service.metrics.recorder import Counts, Recorder, labels
from service.settings import Settings

STATM = Path("/proc/self/statm")
"""The file in which Linux shows the memory pages of a process."""


class Metrics(Collector):
    """The metrics of the application that ``engine`` is part of."""

    def __init__(
        self, engine: Engine, settings: Settings, shared: SharedMetrics, recorder: Recorder, log_writer: LogWriter
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._shared = shared
        self._recorder = recorder
        self._log_writer = log_writer
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def publish(self) -> None:
        """Share the counts with the other workers and with a later replacement; a failure is counted."""
        try:
            self._publish()
        except Exception as error:  # noqa: BLE001 - the server calls it once a second and would end
            self._shared.failures.record("publish_metrics", error)

    def _publish(self) -> None:
        counts = self._recorder.counts()
        counts["cpu", str(self._shared.number)] = [cpu_s()]
        counts["log_lines_dropped",] = [self._log_writer.dropped]
        self._shared.publish(Figures(counts, self._gauges()))

    def figures(self) -> Figures:
        """The figures of all processes; those of other processes are up to a second old."""
        self._publish()
        return self._shared.total()

    def expose(self, accept: str) -> tuple[bytes, str]:
        """All metrics in the format that ``accept`` asks for, and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def collect(self) -> Iterator[Metric]:
        """See `prometheus_client`."""
        windows = {labels((m.name, m.version)): m.window for m in self._engine.models if m.window is not None}
        yield from families(self.figures(), self._shared.ready, windows, max(1, self._settings.drift_window // 2))

    def describe(self) -> Iterator[Metric]:
        """Describe nothing before a scrape."""
        return iter(())

    def _gauges(self) -> Counts:
        found: Counts = {}
        if (resident := resident_bytes()) is not None:
            found["resident", str(self._shared.number)] = [resident]
        for model in self._engine.models:
            key = labels((model.name, model.version))
            manifest = model.manifest
            found["info", *key, manifest.runtime, model.device, manifest.precision] = [1]
            found["queue", *key] = [model.batcher.waiting + model.room.held]
            found["under_way", *key] = [model.room.pictures]
            found["limit", *key] = [self._settings.max_queue]
            found["last", *key, str(self._shared.number)] = [
                self._recorder.of_model((model.name, model.version)).last_s
            ]
            found["hangs", *key] = [model.batcher.hangs]
            if model.window is not None:
                for position, shown in enumerate(model.window.shows()):
                    found["drift", *key, str(position)] = [*shown.counts, shown.total]
        return found


def create_metrics_route(find_metrics: Callable[[], Metrics], **options: Any) -> APIRouter:
    """GET /metrics; ``options`` are those of a router."""
    router = APIRouter(route_class=ErrorRoute, **options)

    @router.get(
        "/metrics",
        tags=["metrics"],
        summary="What the service does, for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def scrape(request: Request) -> Response:
        content, content_type = find_metrics().expose(request.headers.get("accept", ""))
        return Response(content, headers={"content-type": content_type})

    return router


def cpu_s() -> float:
    """Processor time of this process."""
    times = os.times()
    return times.user + times.system


def resident_bytes() -> int | None:
    """Memory of this process; None where the system does not tell."""
    try:
        return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None
