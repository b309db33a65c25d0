"""The state of one application. Two applications in one process share nothing."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog
from fastapi import FastAPI

from service.errors import NotReadyError
from service.inference.engine import Engine
from service.inference.registry import Models
from service.logging import LogWriter
from service.metrics.collector import Metrics
from service.metrics.multiprocess import SharedMetrics, WorkerSlot
from service.metrics.recorder import Counts, Recorder
from service.middleware.access_log import AccessLog
from service.middleware.auth import AccessPolicy
from service.middleware.rate_limit import RateLimiter
from service.redaction import Redactor
from service.repository.mirror import copy_at_start
from service.repository.repository import Repository
from service.repository.startup import load_models
from service.response_cache import ResponseCache
from service.rollout.manager import RolloutManager
from service.settings import Settings

if TYPE_CHECKING:
    from service.middleware.tracing import Tracer

NOT_STARTED = "the lifespan of the application has not run, so no model is loaded; see docs/use/embedding.md"

log = structlog.get_logger(__name__)


class Worker(NamedTuple):
    """The part of an application that is one of several worker processes."""

    is_ready: Callable[[], bool]
    """Whether all workers can answer."""
    repository: Repository
    slot: WorkerSlot


class Running(NamedTuple):
    """The parts of an application that exist while its lifespan runs."""

    engine: Engine
    repository: Repository
    metrics: Metrics
    rollouts: RolloutManager


class Parts(NamedTuple):
    """The parts of an application that a user may change; see `ServiceState.is_unmodified`."""

    middleware: tuple[Any, ...]
    routes: tuple[Any, ...]
    exception_handlers: Mapping[Any, Any]

    @classmethod
    def of(cls, app: FastAPI) -> "Parts":
        """Return the present parts of ``app``."""
        return cls(tuple(app.user_middleware), tuple(app.routes), dict(app.exception_handlers))

    def are(self, others: "Parts") -> bool:
        """Whether both hold the same objects."""
        return (
            [*map(id, self.middleware)] == [*map(id, others.middleware)]
            and [*map(id, self.routes)] == [*map(id, others.routes)]
            and self.exception_handlers == others.exception_handlers
        )


@dataclass(eq=False)
class ServiceState:
    """The state of an application, at ``app.state.service``."""

    settings: Settings
    policy: AccessPolicy
    redactor: Redactor
    recorder: Recorder
    log_writer: LogWriter
    access_log: AccessLog
    rate_limiter: RateLimiter | None = None
    response_cache: ResponseCache | None = None
    models: Models | None = None
    """The models for the next start, which loads them if there are none."""
    worker: Worker | None = None
    tracer: "Tracer | None" = None
    running: Running | None = field(default=None, init=False)
    parts: Parts | None = field(default=None, init=False)
    """The parts of the application as `service.app.create_app` made it."""

    @property
    def engine(self) -> Engine:
        """The engine.

        Raises:
            NotReadyError: the lifespan of the application has not run.
        """
        return self._running().engine

    @property
    def repository(self) -> Repository:
        """The repository; see `engine`."""
        return self._running().repository

    @property
    def metrics(self) -> Metrics:
        """The metrics; see `engine`."""
        return self._running().metrics

    @property
    def rollouts(self) -> RolloutManager:
        """The rollouts; see `engine`."""
        return self._running().rollouts

    def workers_ready(self) -> bool:
        """Whether all workers can answer."""
        return self.worker is None or self.worker.is_ready()

    def is_unmodified(self, app: FastAPI) -> bool:
        """Whether ``app`` has no middleware, route or exception handler that a user added."""
        return type(app) is FastAPI and self.parts is not None and self.parts.are(Parts.of(app))

    def load(self) -> Models:
        """Load the models for the next start, unless they are loaded.

        Raises:
            StartError: a model cannot be loaded.
        """
        if self.models is None:
            if self.worker is None:  # the supervisor has copied them for its workers
                copy_at_start(self.settings)
            self.models = load_models(self.settings, recorder=self.recorder)
        return self.models

    async def start(self) -> None:
        """Load the models if necessary, and begin to serve them.

        Raises:
            StartError: a model cannot be loaded.
        """
        models = await asyncio.to_thread(self.load)
        engine = Engine(models, self.settings)
        repository = self.worker.repository if self.worker else Repository(self.settings, models)
        shared = SharedMetrics(self.worker.slot if self.worker else None, repository.failures)
        rollouts = RolloutManager(self.settings, models, repository)
        metrics = Metrics(
            shared,
            self.recorder,
            self.log_writer,
            partial(self._gauges, models, rollouts, shared.number),
            models.drift_windows,
            max(1, self.settings.drift_window // 2),
        )
        if self.tracer is not None:
            self.tracer.open()
        await rollouts.start()
        self.running = Running(engine, repository, metrics, rollouts)
        repository.start()

    async def stop(self) -> None:
        """Finish the accepted requests, and release the resources of `start`. The next start loads the models again."""
        running = self._running()
        running.rollouts.close()
        running.repository.close()
        await running.engine.close()
        log.info("stopped")
        self.access_log.flush()
        self.models = None
        if self.tracer is not None:
            await asyncio.to_thread(self.tracer.close)
        await asyncio.to_thread(self.log_writer.close)

    def _gauges(self, models: Models, rollouts: RolloutManager, worker: int) -> Counts:
        """The present values of ``models``, of their rollouts and of the response cache."""
        cache = self.response_cache
        found = models.gauges(self.settings.max_queue) | rollouts.gauges(worker)
        return found | (cache.gauges() if cache is not None else {})

    def _running(self) -> Running:
        if self.running is None:
            raise NotReadyError(NOT_STARTED)
        return self.running
