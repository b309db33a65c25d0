"""The HTTP server: uvicorn, as this service wants it."""

import asyncio
import gc
import logging
import os
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import structlog
import uvicorn
import uvicorn.server
from fastapi import FastAPI

from service.api.predict import BATCH_PATH, PREDICT_PATH, Predict
from service.api.stream import PATH as STREAM
from service.app import get_state, is_unmodified
from service.errors import StartError
from service.middleware.access_log import Client
from service.request_context import RequestContext
from service.server.fast_path.admission_queue import AdmissionQueue
from service.server.fast_path.busy_poll import BusyPoll
from service.server.fast_path.handler import FastPathHandler
from service.server.http_request import Headers
from service.server.listening import copies
from service.server.options import CommonHeaders, ProtocolOptions
from service.server.protocol import protocol_class
from service.server.proxy_headers import TrustedProxies
from service.server.watchdog import HANGS, Watchdog
from service.state import ServiceState

if TYPE_CHECKING:
    from service.grpc.server import GrpcServer

COLLECT_AFTER = 50_000
"""New objects, less those that are gone, after which cyclic garbage is looked for."""
TICKS = 10
"""Of uvicorn, after which counts are shared: a second."""
LAST_S = 2.0
"""For the last words of a process whose time is over, to those that it leaves without an answer."""
CANNOT_START = 3
"""Exit status of a process whose application did not start, as uvicorn has it; its log says why."""
log = structlog.get_logger(__name__)


class Server(uvicorn.Server):
    """Answers on a socket until it is told to stop."""

    def __init__(self, app: FastAPI, on_ready: Callable[[], None]) -> None:
        """``app`` is one of `service.app.create_app`; ``on_ready`` is called when it answers.

        Raises:
            StartError: its models cannot be loaded.
        """
        self._state = state = get_state(app)
        settings, worker = state.settings, state.worker
        self._on_ready = on_ready
        self._is_worker = worker is not None
        self._place = worker.slot if worker is not None else None
        self._grace_s = settings.shutdown_timeout_s
        self._grpc: GrpcServer | None = None
        self._watchdog = Watchdog(settings.inference_timeout_s, self._end, self._place)
        options = ProtocolOptions(
            access_log=state.access_log,
            redactor=state.redactor,
            header_timeout_s=settings.header_timeout_s,
            request_timeout_s=settings.request_timeout_s,
            keep_alive_s=settings.keep_alive_s,
            headers=CommonHeaders(((b"vary", b"Origin"),) if settings.cors_origins else ()),  # as the application says
            fast_path=create_fast_path(state) if is_unmodified(app) else None,
            proxies=TrustedProxies(settings.forwarded_allow_ips),
            websocket_paths=frozenset({STREAM.encode()} if settings.stream else ()),
            busy_poll=BusyPoll(settings.busy_poll_us / 1e6),
        )
        config = uvicorn.Config(
            app,
            http=protocol_class(options),
            ws="websockets-sansio" if settings.stream else "none",
            ws_max_size=settings.max_bytes,
            ws_per_message_deflate=False,  # pictures are compressed already
            access_log=False,
            log_config=None,
            log_level="error",  # its warnings are of what clients send, which has a line in the log already
            server_header=False,
            proxy_headers=False,  # the protocol resolves them, for the fast path as well
            root_path=settings.root_path,
            timeout_graceful_shutdown=settings.shutdown_timeout_s,
            lifespan="on",
        )
        super().__init__(config)

    def serve_on(self, listener: socket.socket) -> NoReturn:
        """Serve until told to stop, and end the process."""
        for sig in uvicorn.server.HANDLED_SIGNALS:  # uvicorn does so too, but not to the end
            signal.signal(sig, self.handle_exit)
        calm_collector()
        self.run(copies(listener))
        if self._state.running is None:  # the log says why
            self._end(CANNOT_START)
        self._state.metrics.publish()
        self._end()

    def _end(self, status: int = 0) -> NoReturn:
        """End the process as it is: Python would wait for threads that may never end."""
        self._state.access_log.flush()
        self._state.log_writer.flush()
        running = self._state.running
        os._exit(HANGS if running is not None and running.engine.stuck else status)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Answer what is under way and end, on a second signal at once. Uvicorn's own would end as if killed.

        A worker may get one from its process group and one from the supervisor, which has a signal of its own for that.
        """
        if self.should_exit and not self._is_worker:
            self.end_at_once()
        self.should_exit = True

    def end_at_once(self) -> None:
        """Answer nothing more."""
        self.should_exit = self.force_exit = True
        logging.getLogger("uvicorn.error").disabled = True  # it would write tracebacks of what is now cancelled
        self._watchdog.end_within(LAST_S)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer, and say so."""
        await super().startup(sockets)
        self._grpc = create_grpc(self._state)
        if self._grpc is not None:
            try:
                await self._grpc.start()
            except StartError as error:
                log.error("cannot_start", error=str(error))  # noqa: TRY400 - the message says it all
                self._end(CANNOT_START)
        self._watchdog.start()
        self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what is under way and take nothing new."""
        if self._place is not None:
            self._place.ready[self._place.number] = 0
        self._watchdog.end_within(self._grace_s + LAST_S)
        if self._grpc is None:
            await super().shutdown(sockets)
        else:
            await asyncio.gather(self._grpc.stop(self._grace_s), super().shutdown(sockets))

    async def on_tick(self, counter: int) -> bool:
        """Called by uvicorn ten times a second; whether to stop."""
        if self._is_worker and counter % TICKS == 0:
            self._state.metrics.publish()
        if self._is_worker and self._state.engine.hangs:
            return True  # another one takes its place
        return await super().on_tick(counter)


def create_fast_path(state: ServiceState) -> FastPathHandler | None:
    """The fast path of an application that nobody has changed, if it is to have one; traces need the application."""
    settings, policy = state.settings, state.policy
    if not settings.fast_path or settings.traces:
        return None
    access = {path: policy.access(path) for path in (PREDICT_PATH, BATCH_PATH)}

    def authorize(context: RequestContext, path: str, headers: Headers, client: Client) -> None:
        principal = policy.authorize(access[path], headers)
        context.key = principal.key
        if state.rate_limiter is not None:
            context.counted_for = state.rate_limiter.admit(principal, client[0] if client is not None else "")

    predict = Predict(state)
    return FastPathHandler(
        {PREDICT_PATH: predict.answer_one, BATCH_PATH: predict.answer_several},
        state.load(),
        authorize,
        state.access_log,
        state.redactor,
        AdmissionQueue(open_below=min(settings.max_batch, settings.max_queue), patience_s=settings.timeout_ms / 1000),
        left_to_application={b"origin"} if settings.cors_origins else (),
    )


def create_grpc(state: ServiceState) -> "GrpcServer | None":
    """Create the gRPC server of an application, if its settings name a port."""
    if state.settings.grpc_port < 0:
        return None
    from service.grpc.server import GrpcServer

    return GrpcServer(state)


def calm_collector() -> None:
    """Look for cyclic garbage seldom, and not in what stays for good: Python's defaults take a tenth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)
