"""The HTTP server: uvicorn, as this service wants it."""

import asyncio
import gc
import logging
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import NoReturn

import structlog
import uvicorn
import uvicorn.server
from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.predict import ONE, SEVERAL, Predict
from service.app import get_state, is_unmodified
from service.errors import STOPPED, AddressError
from service.metrics.multiprocess import WorkerSlot
from service.middleware.security_headers import NO_SNIFFING
from service.request_context import RequestContext
from service.responses import error_response, send_response
from service.server.fast_path.admission_queue import AdmissionQueue
from service.server.fast_path.busy_poll import BusyPoll
from service.server.fast_path.handler import FastPathHandler
from service.server.fast_path.heads import Heads
from service.server.fast_path.write_buffer import WriteBuffer
from service.server.protocol import Connection
from service.settings import Settings

BACKLOG = 2048
ACCEPTED_A_TURN = 8
"""New connections, for each turn of the event loop; one would take seconds for hundreds while inferences hold it."""
COLLECT_AFTER = 50_000
"""New objects, less those that are gone, after which cyclic garbage is looked for."""
TICKS = 10
"""Of uvicorn, after which counts are shared: a second."""
BEAT_S = 0.1
LOOK_S = 1.0
"""Between looks at whether the event loop has beaten."""
LAST_S = 2.0
"""For the last words of a process whose time is over, to those that it leaves without an answer."""
CANNOT_START = 3
"""Exit status of a process whose application did not start, as uvicorn has it; its log says why."""
HANGS = 70
"""Exit status of a process that ends because it hangs; EX_SOFTWARE of sysexits.h."""

log = structlog.get_logger(__name__)


def listen(settings: Settings) -> socket.socket:
    """Take the address.

    Raises:
        AddressError: it is in use, not ours, or not allowed.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise AddressError(
            f"cannot listen on {settings.host}:{settings.port} ({error.strerror}); choose another --host or --port"
        ) from error


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
        self._watchdog = Watchdog(settings.inference_timeout_s, self._end, self._place)
        predict = Predict(state)
        answerers = {ONE: predict.answer_one, SEVERAL: predict.answer_several} if is_unmodified(app) else {}
        turnstile = AdmissionQueue(
            state.load(),
            state.access_log,
            open_below=min(settings.max_batch, settings.max_queue),
            patience_s=settings.timeout_ms / 1000,
        )
        personal = {b"origin"} if settings.cors_origins else set()
        if settings.traces:
            personal.add(b"traceparent")
        connection = {
            "request_timeout_s": settings.request_timeout_s,
            "header_timeout_s": settings.header_timeout_s,
            "lines": state.access_log,
            "heads": Heads(answerers, state.policy.owner, personal),
            "turnstile": turnstile,
            "direct": None if settings.traces else FastPathHandler(answerers, state.access_log, turnstile),
            "common": ((b"vary", b"Origin"),) if settings.cors_origins else (),  # as the application says
            "outbox": WriteBuffer(),
            "vigil": BusyPoll(settings.busy_poll_us / 1e6),
        }
        config = uvicorn.Config(
            ServedApplication(app, turnstile.ended),
            http=type("PatientConnection", (Connection,), connection),
            ws="none",
            access_log=False,
            log_config=None,
            log_level="error",  # its warnings are of what clients send, which has a line in the log already
            server_header=False,
            proxy_headers=False,  # nobody is told apart by address
            timeout_graceful_shutdown=settings.shutdown_timeout_s,
            lifespan="on",
        )
        super().__init__(config)

    def serve_on(self, listener: socket.socket) -> NoReturn:
        """Serve until told to stop, and end the process."""
        for sig in uvicorn.server.HANDLED_SIGNALS:  # uvicorn does so too, but not to the end
            signal.signal(sig, self.handle_exit)
        calm_collector()
        self.run(several(listener))
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
        self._watchdog.start()
        self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what is under way and take nothing new."""
        if self._place is not None:
            self._place.ready[self._place.number] = 0
        self._watchdog.end_within(self._grace_s + LAST_S)
        await super().shutdown(sockets)

    async def on_tick(self, counter: int) -> bool:
        """Called by uvicorn ten times a second; whether to stop."""
        if self._is_worker and counter % TICKS == 0:
            self._state.metrics.publish()
        if self._is_worker and self._state.engine.hangs:
            return True  # another one takes its place
        return await super().on_tick(counter)


class ServedApplication:
    """An application, as the server runs it."""

    def __init__(self, app: ASGIApp, ended: Callable[[str, bytes, RequestContext], None]) -> None:
        """``ended`` is told path, target and context of POST requests that have ended."""
        self._app = app
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        def send_on(message: Message) -> Awaitable[None]:
            nonlocal started
            started = True
            return send(message)

        try:
            await self._app(scope, receive, send_on)
        except asyncio.CancelledError:  # by uvicorn, when `timeout_graceful_shutdown` is over; nobody else cancels here
            if scope["type"] != "http" or started:
                raise
            await send_stopped(scope, send)
        finally:
            if scope["type"] == "http" and scope["method"] == "POST" and (context := scope.get("exchange")) is not None:
                self._ended(scope["path"], target_of(scope), context)


async def send_stopped(scope: Scope, send: Send) -> None:
    """Answer a request whose time is over because the service stops."""
    response = error_response(STOPPED, scope["path"])
    context = scope.get("exchange")
    given = ((b"x-request-id", context.id.encode()),) if context is not None else ()
    await send_response(send, response._replace(headers=(*response.headers, *given, NO_SNIFFING)))


def target_of(scope: Scope) -> bytes:
    """The target of a request as it arrived."""
    path: bytes = scope["raw_path"]
    return path + b"?" + scope["query_string"] if scope["query_string"] else path


class Watchdog:
    """Ends a process that does not do so itself, so that somebody else may start it again.

    Its event loop stands still, and it can answer nobody; or it should have ended by now, and something holds it.
    """

    def __init__(self, limit_s: float, end: Callable[[int], NoReturn], place: WorkerSlot | None = None) -> None:
        """An event loop may stand still for ``limit_s``; ``end`` ends the process with a status.

        In the ``place`` of a worker it says that the event loop turns.
        """
        self._limit_s = limit_s
        self._end = end
        self._place = place
        self._beats = 0
        self._latest = math.inf

    def start(self) -> None:
        """Begin to watch the event loop that runs."""
        loop = asyncio.get_running_loop()
        self._beat(loop)
        threading.Thread(target=self._watch, args=(loop,), name="watchdog", daemon=True).start()

    def end_within(self, seconds: float) -> None:
        """The process is to have ended by then."""
        self._latest = min(self._latest, time.monotonic() + seconds)

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        self._beats += 1
        if self._place is not None:
            self._place.beats[self._place.number] = self._beats
        loop.call_later(BEAT_S, self._beat, loop)

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        seen, missed_s = self._beats, 0.0
        while missed_s < self._limit_s:
            time.sleep(LOOK_S)  # while the whole process is suspended nothing is missed
            missed_s = missed_s + LOOK_S if self._beats == seen and loop.is_running() else 0.0
            seen = self._beats
            if time.monotonic() > self._latest:
                self._end(0)
        log.critical("event_loop_hangs", seconds=missed_s)
        self._end(HANGS)


def several(listener: socket.socket) -> list[socket.socket]:
    """``listener`` as many times as connections are to be accepted in a turn: uvloop accepts one from each socket.

    It belongs to all workers, and so does whether it blocks: a copy of one that does not say so would make it block for
    those who accept from it already.
    """
    listener.setblocking(False)
    return [listener, *(listener.dup() for _ in range(ACCEPTED_A_TURN - 1))]


def calm_collector() -> None:
    """Look for cyclic garbage seldom, and not in what stays for good: Python's defaults take a tenth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)
