"""POST /predict and POST /predict/batch without ASGI between the connection and the engine.

What ASGI and middlewares do for a request takes long beside the work on a small picture. Here the functions of
`service.api.predict` answer a request as the parser read it, and it ends in the same log and the same metrics.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import partial
from time import perf_counter
from typing import NamedTuple

from service.api.options import read_options
from service.api.predict import outcome
from service.api.request_body import Body
from service.errors import STOPPED, RequestError
from service.inference.admission import CapacityLimiter
from service.inference.registry import Model, Models
from service.middleware.access_log import AccessLog, Client
from service.middleware.request_id import request_id
from service.redaction import Redactor
from service.request_context import RequestContext, current
from service.responses import RawResponse, error_response
from service.schemas.options import PredictOptions
from service.server.fast_path.admission_queue import AdmissionQueue
from service.server.http_request import Headers, HTTPRequest
from service.server.protocol import HTTPProtocol

Answerer = Callable[[bytes, Body], Awaitable[RawResponse]]
"""Answers the query and the body of a request."""
Authorize = Callable[[RequestContext, str, Headers, Client], None]
"""Records whose request for a path with these headers is; raises RequestError if it may not be answered."""

MODEL_FIELD = re.compile(rb'name="?(?:model|version)\b', re.IGNORECASE)
"""A part of a form that says which model is to answer."""
REFUSAL_S = 0.1
"""Seconds for which a refusal is sent again as it was made."""


class Refusal(NamedTuple):
    """What those get for whom a model has no room."""

    limiter: CapacityLimiter
    response: RawResponse
    until: float


class FastPathHandler:
    """Answers requests."""

    def __init__(
        self,
        answerers: Mapping[str, Answerer],
        models: Models,
        authorize: Authorize,
        access_log: AccessLog,
        redactor: Redactor,
        queue: AdmissionQueue,
        *,
        left_to_application: Collection[bytes] = (),
    ) -> None:
        """``answerers`` by path. Requests with a header of ``left_to_application`` are not taken."""
        self._answerers = {path.encode(): (path, answerer) for path, answerer in answerers.items()}
        self._models = models
        self._authorize = authorize
        self._access_log = access_log
        self._redactor = redactor
        self._queue = queue
        self._left_to_application = frozenset(left_to_application)
        self._refusal: Refusal | None = None
        """The last one."""

    def takes(self, request: HTTPRequest) -> bool:
        """Whether it answers ``request``, of which the head has arrived."""
        if request.method != b"POST" or request.path not in self._answerers:
            return False
        return not self._left_to_application or self._left_to_application.isdisjoint(
            [name for name, _ in request.headers]
        )

    def begin(self, connection: HTTPProtocol, request: HTTPRequest) -> None:
        """Answer ``request`` now, or refuse it, or let it wait for its turn."""
        path, _ = self._answerers[request.path]
        request.context = context = RequestContext(request_id(request.headers, self._redactor))
        try:
            self._authorize(context, path, request.headers, request.client)
        except RequestError as error:
            respond(connection, request, context, error_response(error, path))
            self._end(request, context)
            return
        context.route = path
        if request.is_complete and not self._queue.is_open(len(connection.in_progress)) and not names_model(request):
            try:
                options = read_options(request.query, PredictOptions)
                model = self._models.find(options.model, options.version)
            except RequestError:
                pass  # the answer will say so
            else:
                limiter, size = model.limiter, request.content_length or 0
                if limiter.fits(1, size):
                    context.model, context.version = model.name, model.version
                    start = partial(self._start, connection, request, context)
                    self._queue.add(request, limiter, size, start)
                    return
                if limiter.could_fit(1, size):
                    self._refuse(connection, request, context, model)
                    return
        self._start(connection, request, context, 0.0)

    def leave(self, request: HTTPRequest) -> None:
        """Forget ``request``, which was taken: its client has gone away."""
        if request.context is None:  # its body was still arriving
            request.context = RequestContext(request_id(request.headers, self._redactor))
            request.context.route = self._answerers[request.path][0]
        elif (queued := self._queue.remove(request)) is None:
            return  # whoever answers it will notice
        else:
            request.context.queued_s = perf_counter() - queued.since
        self._end(request, request.context)

    def task_ended(self) -> None:
        """Note that a request has ended, on this path or through the application."""
        self._queue.advance()

    def _start(self, connection: HTTPProtocol, request: HTTPRequest, context: RequestContext, queued_s: float) -> None:
        context.queued_s = queued_s
        context.in_progress = connection.in_progress
        connection.start(request, self._answer(connection, request, context))

    async def _answer(self, connection: HTTPProtocol, request: HTTPRequest, context: RequestContext) -> None:
        current.set(context)
        path, answerer = self._answerers[request.path]
        try:
            try:
                content = request.take() if request.is_complete and not request.is_disconnected else None
                body = Body(request.headers, request.receive, content)
                response = await outcome(answerer(request.query, body), path)
            except asyncio.CancelledError:  # by uvicorn, when `timeout_graceful_shutdown` is over
                response = error_response(STOPPED, path)
            if response is not None:
                respond(connection, request, context, response)
        finally:
            self._end(request, context)

    def _refuse(self, connection: HTTPProtocol, request: HTTPRequest, context: RequestContext, model: Model) -> None:
        context.model, context.version = model.name, model.version
        now = perf_counter()
        if self._refusal is None or self._refusal.limiter is not model.limiter or now > self._refusal.until:
            response = error_response(model.limiter.full(), "")
            self._refusal = Refusal(model.limiter, response, now + REFUSAL_S)
        respond(connection, request, context, self._refusal.response)
        self._end(request, context)

    def _end(self, request: HTTPRequest, context: RequestContext) -> None:
        path = request.logged_path or self._answerers[request.path][0]
        self._access_log.end("POST", path, request.client, context)


def names_model(request: HTTPRequest) -> bool:
    """Whether the body may name another model than the query, as a form can."""
    is_form = any(name == b"content-type" and value[:10].lower() == b"multipart/" for name, value in request.headers)
    return is_form and request.contains(MODEL_FIELD)


def respond(connection: HTTPProtocol, request: HTTPRequest, context: RequestContext, response: RawResponse) -> None:
    """Send ``response``, and note what it is."""
    context.status, context.error = response.status, response.error
    connection.respond(request, response, context.id)
