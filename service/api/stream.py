"""WS /stream: picture files in, an answer for the newest of them out, as long as the connection lasts.

A frame that arrives while another is answered waits, and the next one replaces it. A client may therefore send frames
as fast as its camera takes them. Each answered frame is a request: `service.api.predict` answers it under the same
limits, and it ends in the same log and the same metrics.
"""

import asyncio
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.routing import WebSocketRoute
from starlette.types import Message, Receive, Scope, Send

from service.api.options import read_options
from service.api.predict import TIMEOUT, Predict, outcome
from service.api.request_body import Body
from service.errors import ForbiddenError, InvalidBodyError, QueueFullError, RequestError
from service.inference.registry import Model
from service.middleware.auth import EVERYBODY, POLICY_VIOLATION, Access, Principal, Requirement
from service.middleware.request_id import new_id
from service.request_context import RequestContext, current, record_counted_for
from service.responses import RawResponse, error_response
from service.schemas.options import PredictOptions
from service.state import ServiceState

PATH = "/stream"
IDLE = 1000
"""The code that closes a connection on which no frame arrives."""


class Frame(NamedTuple):
    """A message of the client."""

    number: int
    """Counts from 0, dropped frames included."""
    content: bytes | None
    """None if the message was text."""


class Stream:
    """Answers the connections of one application."""

    def __init__(self, state: ServiceState) -> None:
        self._state = state
        self._predict = Predict(state)
        self._requirement = Requirement(state.policy, Access.USER)
        self._open = 0
        """Number of connections."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection."""
        await receive()  # websocket.connect
        self._open += 1
        try:
            with suppress(OSError):  # what servers raise when the client has gone
                await send({"type": "websocket.accept"})
                try:
                    model = self._admit(scope)
                except RequestError as error:
                    await self._refuse(scope, send, error)
                else:
                    await Connection(self._state, self._predict, model, scope).run(receive, send)
        finally:
            self._open -= 1

    def _admit(self, scope: Scope) -> Model:
        """Return the model that answers at first.

        Raises:
            RequestError: the connection cannot be accepted.
        """
        self._requirement.enforce(scope)
        check_origin(Headers(scope=scope), self._state.settings.cors_origins)
        options = read_options(scope["query_string"], PredictOptions)
        model = self._state.engine.find(options.model, options.version)
        most = self._state.settings.max_streams
        if self._open > most:
            raise QueueFullError(f"{most} streams are open already; close one, or try again later", 1)
        return model

    async def _refuse(self, scope: Scope, send: Send, error: RequestError) -> None:
        """Say what is wrong in a message, which pages can read, unlike a response to the opening handshake."""
        context = RequestContext(new_id())
        context.route, context.status, context.error = PATH, error.status, error.code
        context.key = scope.get("principal", EVERYBODY).key
        self._state.access_log.end("GET", PATH, scope.get("client"), context)
        await send({"type": "websocket.send", "text": error_response(error, PATH).content.decode()})
        await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": error.code})


class Connection:
    """One connection: a task reads frames, and the other answers the newest."""

    def __init__(self, state: ServiceState, predict: Predict, model: Model, scope: Scope) -> None:
        self._state = state
        self._predict = predict
        self._metrics = state.recorder.of_model((model.name, model.version))
        self._query: bytes = scope["query_string"]
        self._headers = [header for header in scope["headers"] if header[0] == TIMEOUT]
        self._principal: Principal = scope.get("principal", EVERYBODY)
        self._client = scope.get("client")
        self._newest: Frame | None = None
        self._arrived = asyncio.Event()
        self._dropped = 0
        self._context: RequestContext | None = None
        """The context of the frame that is answered now."""

    async def run(self, receive: Receive, send: Send) -> None:
        """Answer until the client leaves, or sends nothing for `Settings.keep_alive_s`."""
        send = self._limited(send)
        answering = asyncio.ensure_future(self._answer_all(send))
        reading = asyncio.ensure_future(self._read_all(receive))
        try:
            await asyncio.wait((answering, reading), return_when=asyncio.FIRST_COMPLETED)
            if reading.done() and not reading.result():
                await send({"type": "websocket.close", "code": IDLE, "reason": "no frame has arrived for long"})
        finally:
            if self._context is not None:
                self._context.disconnect()
            for task in (answering, reading):
                task.cancel()
            results = await asyncio.gather(answering, reading, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result

    def _limited(self, send: Send) -> Send:
        """Return ``send`` for a client that may not read, for which servers wait without a limit."""

        async def limited(message: Message) -> None:
            async with asyncio.timeout(self._state.settings.request_timeout_s):
                await send(message)

        return limited

    async def _read_all(self, receive: Receive) -> bool:
        """Keep the newest frame; return whether the client has left, as otherwise none arrives."""
        number = 0
        while True:
            try:
                message = await asyncio.wait_for(receive(), self._state.settings.keep_alive_s)
            except TimeoutError:
                return False
            if message["type"] == "websocket.disconnect":
                return True
            if self._newest is not None:
                self._dropped += 1
                self._metrics.dropped_frame()
            self._newest = Frame(number, message.get("bytes"))
            self._arrived.set()
            number += 1

    async def _answer_all(self, send: Send) -> None:
        """Answer the newest frame, one after the other; a client that does not read holds this up."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            frame, self._newest = self._newest, None
            assert frame is not None  # noqa: S101 - it has arrived
            response = await self._answer(frame)
            if response is None:
                return
            facts = b'{"frame":%d,"dropped":%d,' % (frame.number, self._dropped)
            await send({"type": "websocket.send", "text": (facts + response.content[1:]).decode()})

    async def _answer(self, frame: Frame) -> RawResponse | None:
        """The answer to ``frame``, counted and logged as a request; None if the client has left."""
        self._context = context = RequestContext(new_id())
        context.route, context.key = PATH, self._principal.key
        current.set(context)
        try:
            response = await outcome(self._predict_frame(frame), PATH)
            if response is not None:
                context.status, context.error = response.status, response.error
            return response
        finally:
            self._state.access_log.end("GET", PATH, self._client, context)

    async def _predict_frame(self, frame: Frame) -> RawResponse:
        if self._state.rate_limiter is not None:
            client = self._client[0] if self._client is not None else ""
            record_counted_for(self._state.rate_limiter.admit(self._principal, client))
        if frame.content is None:
            raise InvalidBodyError("a frame is a picture file in a binary message, and this message is text")
        return await self._predict.answer_one(self._query, Body(self._headers, gone, frame.content))


async def gone() -> Message:
    """What follows a complete body."""
    return {"type": "http.disconnect"}


def check_origin(headers: Headers, allowed: str) -> None:
    """Raise `ForbiddenError` if the page of another origin opens the connection, which CORS does not prevent."""
    origin = headers.get("origin")
    try:
        if origin is None or urlsplit(origin).netloc == headers.get("host"):
            return
    except ValueError as error:
        raise ForbiddenError("the header Origin is not that of a page") from error
    if origin not in (listed := [each.strip().rstrip("/") for each in allowed.split(",")]) and "*" not in listed:
        raise ForbiddenError("pages of this origin may not use the service; start it with --cors-origins")


def create_stream_route(state: ServiceState) -> WebSocketRoute:
    """Create the route."""
    return WebSocketRoute(PATH, Stream(state))
